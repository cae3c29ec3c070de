#!/usr/bin/env bash
# Trains on 4 nodes of 8 GPUs of a SLURM cluster, a process for every GPU, and resumes after the time limit or a preemption.
#
#   DATA=… RUNS=… sbatch --partition=… launch/slurm_gpus.sh      (both on disks that all nodes share; from the checkout, with its
#                                                                 environment in .venv: pip install -e '.[cuda]')
#
# 300 seconds before the time limit the processes save and end with exit code 75, and the job requeues itself, at most RESTARTS times. Any
# other exit code ends the job with that code. SLURM itself requeues after a preemption or the loss of a node. scancel ends the job.
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
: "${DATA:?set it to the prepared data}" "${RUNS:?set it to a folder for workdirs}"
: "${SLURM_JOB_ID:?start this with sbatch}"
CONFIG=${CONFIG:-imagenet_pod:8192}
RESTARTS=${RESTARTS:-100}

say() { echo "slurm_gpus.sh: $*" >&2; }
[[ -x .venv/bin/python ]] || { say "no .venv/bin/python in $PWD; submit from the checkout, with its environment in .venv" && exit 2; }
resume="submit the same command again: it resumes from $RUNS/$SLURM_JOB_NAME"

# SLURM sends SIGTERM to the processes before the time limit, and to this script too when it ends the job itself.
ended=''
trap 'ended=yes' TERM
# Every process sees all GPUs of its node and takes the one of its rank. Some processes end a little before others have saved.
srun --gpu-bind=none --kill-on-bad-exit=0 .venv/bin/python train.py --config="$CONFIG" --config.data.source="$DATA" \
    --workdir="$RUNS/$SLURM_JOB_NAME" &
step=$!
while true; do # A signal interrupts `wait`, and its code is then that of the signal.
    wait "$step" || true
    kill -0 "$step" 2>/dev/null || break
done
code=0
wait "$step" || code=$?

if [[ $code == 0 ]]; then
    say "trained"
elif [[ $ended ]]; then
    say "SLURM ended the job (exit code $code); it requeues after a preemption; after scancel $resume"
elif [[ $code != 75 ]]; then
    say "failed with exit code $code; the messages above say why; then $resume"
elif ((${SLURM_RESTART_COUNT:-0} >= RESTARTS)); then
    say "stopped and saved, and not requeued after $RESTARTS restarts; $resume"
elif scontrol requeue "$SLURM_JOB_ID"; then
    say "stopped and saved; requeued"
    code=0
else
    say "stopped and saved, but SLURM does not requeue it; $resume"
fi
exit "$code"
