#!/usr/bin/env bash
# Trains on all GPUs of one machine, in one process; from the checkout. The same command resumes after a stop.
#
#   DATA=… launch/gpu_machine.sh [ARGUMENTS of train.py]
#
# The first time it installs into .venv. Exit codes are those of train.py: 0 trained, 1 failed, 2 a mistake in the command, 75 stopped and
# saved (after Ctrl-C or SIGTERM; the same command resumes).
set -euo pipefail
: "${DATA:?set it to the prepared data, or an image folder}"
CONFIG=${CONFIG:-imagenet_pod:1024}

say() { echo "gpu_machine.sh: $*" >&2; }
[[ -f train.py && -f pyproject.toml ]] || { say "no train.py in $PWD; run this from the checkout" && exit 2; }

# A .venv without this file is one whose installation was interrupted, or somebody's own.
marker=.venv/resnet_jax_installed
if [[ ! -f $marker ]]; then
    say "installs into .venv"
    if ! { python3 -m venv .venv && .venv/bin/python -m pip install --editable '.[cuda,gcs]'; }; then
        say "installing failed; the same command tries again"
        exit 1
    fi
    touch "$marker"
fi

# In the background, so that a signal to this script reaches the training, which saves; a second one ends it at once.
training=''
trap '[[ -z $training ]] || kill -TERM "$training"' INT TERM HUP
.venv/bin/python train.py --config="$CONFIG" --config.data.source="$DATA" "$@" &
training=$!
while true; do # A signal interrupts `wait`, and its code is then that of the signal.
    wait "$training" || true
    kill -0 "$training" 2>/dev/null || break
done
code=0
wait "$training" || code=$?
case $code in
    0) say "trained" ;;
    75) say "stopped and saved; the same command resumes" ;;
    *) say "ended with exit code $code; the messages above say why" ;;
esac
exit "$code"
