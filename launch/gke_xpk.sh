#!/usr/bin/env bash
# Trains on a slice of a GKE cluster made with xpk (https://github.com/AI-Hypercomputer/xpk), which writes the JobSet itself.
#
#   PROJECT=… ZONE=… CLUSTER=… BUCKET=gs://… IMAGE=… launch/gke_xpk.sh       (IMAGE: launch/Dockerfile, built and pushed)
set -euo pipefail
: "${PROJECT:?the Google Cloud project}" "${ZONE:?of the cluster}" "${CLUSTER:?made by xpk cluster create}"
: "${BUCKET:?an object store, with the prepared data in BUCKET/imagenet}" "${IMAGE:?of launch/Dockerfile}"
NAME=${NAME:-resnet-jax}
TPU=${TPU:-v5litepod-256} # v5e:16x16
CONFIG=${CONFIG:-imagenet_pod:8192}

xpk workload create --project="$PROJECT" --zone="$ZONE" --cluster="$CLUSTER" \
    --workload="$NAME" --tpu-type="$TPU" --num-slices=1 --max-restarts=100 --docker-image="$IMAGE" \
    --command="python train.py --config=$CONFIG --config.data.source=$BUCKET/imagenet --workdir=$BUCKET/runs/$NAME"
