#!/usr/bin/env bash
# Trains on a slice of a GKE cluster made with xpk (https://github.com/AI-Hypercomputer/xpk), which writes the JobSet itself.
#
#   PROJECT=… ZONE=… CLUSTER=… BUCKET=gs://… IMAGE=… launch/gke_xpk.sh       (IMAGE: launch/Dockerfile, built and pushed)
#
# Returns when the workload is queued. All pods start again, and resume, after exit code 1 (failed), 75 (stopped and saved), and 42 and
# 127 to 255, which xpk always restarts on; not after 2, a mistake in the command. Exit codes of this script: 0 queued, 2 a mistake here,
# else that of xpk.
set -euo pipefail
: "${PROJECT:?set it to the Google Cloud project}" "${ZONE:?set it to the zone of the cluster}"
: "${CLUSTER:?set it to the cluster that xpk cluster create made}"
: "${BUCKET:?set it to a bucket, gs://NAME, with the prepared data in BUCKET/imagenet}"
: "${IMAGE:?set it to the image of launch/Dockerfile, pushed to a registry}"
NAME=${NAME:-resnet-jax}
TPU=${TPU:-v5litepod-256} # v5e:16x16
CONFIG=${CONFIG:-imagenet_pod:8192}

end() { echo "gke_xpk.sh: $1" >&2 && exit "${2:-2}"; }
[[ $BUCKET == gs://?* ]] || end "BUCKET is $BUCKET; it must be gs://NAME"
command -v xpk >/dev/null || end "xpk is not installed: pip install xpk"

place=(--project="$PROJECT" --zone="$ZONE" --cluster="$CLUSTER")
again="watch it: kubectl logs --follow --selector=jobset.sigs.k8s.io/jobset-name=$NAME,batch.kubernetes.io/job-completion-index=0
delete it: xpk workload delete ${place[*]} --workload=$NAME"

# The filter takes substrings, so the name is compared here.
workloads=$(xpk workload list "${place[@]}" --filter-by-job="$NAME") || end "xpk cannot list the workloads of $CLUSTER" $?
if awk -v name="$NAME" '$1 == name { found = 1 } END { exit !found }' <<<"$workloads"; then
    end "a workload $NAME exists, running or finished; set another NAME, or
$again"
fi

train=$(printf '%q ' python train.py --config="$CONFIG" --config.data.source="$BUCKET/imagenet" --workdir="$BUCKET/runs/$NAME")
xpk workload create "${place[@]}" --workload="$NAME" --tpu-type="$TPU" --num-slices=1 --docker-image="$IMAGE" \
    --max-restarts=100 --restart-on-exit-codes=1,75 --termination-grace-period-seconds=300 \
    --env=RESNET_JAX_DATA_CACHE=/tmp/resnet_jax_data --env=RESNET_JAX_DATA_CACHE_GB=30 --command="${train% }" ||
    end "xpk failed; if it left the workload,
$again" $?
echo "$again"
