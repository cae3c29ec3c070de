#!/usr/bin/env bash
# Trains on all GPUs of one machine, in one process; from the checkout. The same command goes on after a stop.
#
#   DATA=… launch/gpu_machine.sh
set -euo pipefail
: "${DATA:?the prepared data, or an image folder}"
CONFIG=${CONFIG:-imagenet_pod:1024}

[[ -d .venv ]] || { python3 -m venv .venv && .venv/bin/pip install --editable '.[cuda]'; }
exec .venv/bin/python train.py --config="$CONFIG" --config.data.source="$DATA" "$@"
