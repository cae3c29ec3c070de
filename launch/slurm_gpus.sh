#!/usr/bin/env bash
# Trains on 4 nodes of 8 GPUs of a SLURM cluster, a process for every GPU, and goes on after the time limit or a preemption.
#
#   DATA=… RUNS=… sbatch --partition=… launch/slurm_gpus.sh      (both on disks that all nodes share; from the checkout, with its
#                                                                 environment in .venv: pip install -e '.[cuda]')
#SBATCH --job-name=resnet-jax
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
: "${DATA:?the prepared data}" "${RUNS:?a folder for workdirs}"
CONFIG=${CONFIG:-imagenet_pod:8192}

code=0
# Every process sees all GPUs of its node and takes the one of its rank.
srun --gpu-bind=none .venv/bin/python train.py --config="$CONFIG" --config.data.source="$DATA" \
    --workdir="$RUNS/${SLURM_JOB_NAME}" || code=$?
# 75: stopped and saved, 300 seconds before the limit. The job keeps its number and begins where it was.
[[ $code -ne 75 ]] || exec scontrol requeue "$SLURM_JOB_ID"
exit "$code"
