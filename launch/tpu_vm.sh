#!/usr/bin/env bash
# Trains on a slice of Cloud TPU VMs, and goes on when a spot slice was preempted: makes the slice, installs on every host, starts the
# same command on all of them. Set the names:
#
#   PROJECT=… ZONE=us-west4-a BUCKET=gs://… REPOSITORY=https://… launch/tpu_vm.sh
set -euo pipefail
: "${PROJECT:?the Google Cloud project}" "${ZONE:?a zone that has the chips}"
: "${BUCKET:?an object store in the region of the zone, with the prepared data in BUCKET/imagenet}"
: "${REPOSITORY:?a URL that git clone takes}"
NAME=${NAME:-resnet-jax}
ACCELERATOR=${ACCELERATOR:-v5litepod-256} # v5e:16x16
RUNTIME=${RUNTIME:-v2-alpha-tpuv5-lite}
CONFIG=${CONFIG:-imagenet_pod:8192}

tpu() { gcloud compute tpus tpu-vm "$1" "$NAME" --project="$PROJECT" --zone="$ZONE" "${@:2}"; }
state() { tpu describe --format='value(state)' 2>/dev/null || echo NONE; }
everywhere() { tpu ssh --worker=all --command="$1"; }

prepare() {
    [[ $(state) == READY ]] && return
    [[ $(state) == NONE ]] || tpu delete --quiet || return
    tpu create --accelerator-type="$ACCELERATOR" --version="$RUNTIME" --spot || return
    # The machines' own Python is older than 3.11.
    everywhere "git clone $REPOSITORY resnet_jax && pip install --user uv && ~/.local/bin/uv venv --python 3.12 venv &&
        cd resnet_jax && ~/.local/bin/uv pip install --python ../venv/bin/python --editable '.[tpu]'"
}

train() {
    everywhere "cd resnet_jax && ../venv/bin/python train.py --config=$CONFIG --config.data.source=$BUCKET/imagenet \
        --workdir=$BUCKET/runs/$NAME"
}

failures=0
until prepare && train; do
    # A slice that is there and fails again and again is not preempted: something is wrong.
    [[ $(state) == READY ]] && failures=$((failures + 1))
    ((failures < 3)) || exit 1
    sleep 60
done
tpu delete --quiet
