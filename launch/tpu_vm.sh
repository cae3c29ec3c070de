#!/usr/bin/env bash
# Trains on a slice of Cloud TPU VMs: creates a spot slice, installs on every host, starts the same command on all hosts, and creates
# another slice when this one is preempted. Deletes the slice when it ends, for whatever reason. Set the names:
#
#   PROJECT=… ZONE=us-west4-a BUCKET=gs://… REPOSITORY=https://… launch/tpu_vm.sh
#
# Run it where it can stay (tmux, or a small VM). Only a kill -9 or a crash of that machine leaves a slice running; the first line that is
# printed is the command that deletes it. Ctrl-C saves, deletes the slice and ends; the same command resumes.
#
# Exit codes: 0 trained; 1 failed three times, no slice to be had, or the slice could not be deleted; 2 a mistake in the command.
set -euo pipefail
export LC_ALL=C
: "${PROJECT:?set it to the Google Cloud project}" "${ZONE:?set it to a zone that has the chips}"
: "${BUCKET:?set it to a bucket in the region of the zone, gs://NAME, with the prepared data in BUCKET/imagenet}"
: "${REPOSITORY:?set it to a URL that git clone takes}"
NAME=${NAME:-resnet-jax}
ACCELERATOR=${ACCELERATOR:-v5litepod-256} # v5e:16x16
RUNTIME=${RUNTIME:-v2-alpha-tpuv5-lite}
CONFIG=${CONFIG:-imagenet_pod:8192}
REVISION=${REVISION:-HEAD}         # The commit, branch or tag to install; name a commit to keep it over preemptions.
CREATE_TRIES=${CREATE_TRIES:-60}   # How often a slice is asked for when there is no capacity.
WAIT=${WAIT:-60}                   # Seconds between tries, and between looks at the training.

TOKEN=$(printf '%04x%04x%04x' "$RANDOM" "$RANDOM" "$RANDOM")$$ # A label of the slice: only its launcher deletes it.
DELETE="gcloud compute tpus tpu-vm delete $NAME --project=$PROJECT --zone=$ZONE"
scratch=$(mktemp -d)
exec 3>&1 4>&2 # Where a signal finds the output redirected, the end still speaks to the user.
child='' created='' training='' attempt=0

say() { echo "tpu_vm.sh: $*" >&2; }

# Commands run in the background and are waited for: a signal then ends the wait at once.
tpu() {
    local code=0
    gcloud compute tpus tpu-vm "$1" "$NAME" --project="$PROJECT" --zone="$ZONE" --quiet "${@:2}" &
    child=$!
    wait "$child" || code=$?
    child=''
    return "$code"
}

pause() {
    sleep "$WAIT" &
    child=$!
    wait "$child" || true
    child=''
}

on() { # WORKERS COMMAND
    tpu ssh --worker="$1" --ssh-flag='-o ServerAliveInterval=30' --ssh-flag='-o ServerAliveCountMax=4' --command="$2"
}

look() { # Sets state (NONE: no slice of this name; UNKNOWN: no answer) and owner.
    state='' owner=''
    if tpu describe --format='value(state,labels.launch)' >"$scratch/out" 2>"$scratch/err"; then
        read -r state owner <"$scratch/out" || true
    elif grep -qi -e NOT_FOUND -e 'not found' "$scratch/err"; then
        state=NONE
    fi
    state=${state:-UNKNOWN}
}

remove() { # Deletes the slice if this launch created it; fails if it may still be there.
    local try
    for ((try = 0; try < 5; try++)); do
        look
        case $state in
            NONE) return 0 ;;
            UNKNOWN) cat "$scratch/err" >&2 ;;
            *)
                [[ $owner == "$TOKEN" ]] || return 0
                ! tpu delete || return 0
                ;;
        esac
        pause
    done
    say "could not delete the slice, which is billed until it is gone; delete it: $DELETE"
    return 1
}

finish() {
    local code=$? try
    exec >&3 2>&4
    trap '' INT TERM HUP PIPE
    trap - EXIT
    set +e
    [[ -z $child ]] || kill "$child" 2>/dev/null
    if [[ $training ]]; then
        say "stopping the training, which saves, for at most 5 times $WAIT s; then the slice is deleted"
        on 0 "kill -TERM \$(cat launch/$training/pid)" >"$scratch/out" 2>&1
        for ((try = 0; try < 5; try++)); do
            on 0 "test -f launch/$training/code" >"$scratch/out" 2>&1 && break
            look
            [[ $state == READY ]] || break
            pause
        done
    fi
    # A creation that was interrupted may show only after a while.
    [[ $created != asked ]] || pause
    [[ -z $created ]] || remove || code=$((code ? code : 1))
    rm -rf "$scratch"
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP
trap 'exit 141' PIPE

create() { # Returns when the slice is READY.
    local try
    for ((try = 1; try <= CREATE_TRIES; try++)); do
        look
        if [[ $state == UNKNOWN ]]; then
            cat "$scratch/err" >&2
            pause
            continue
        elif [[ $state != NONE && $owner != "$TOKEN" ]]; then
            say "a slice $NAME exists, which this launch did not create; set another NAME, or delete it: $DELETE"
            exit 2
        elif [[ $state == READY ]]; then
            return
        fi
        remove || exit 1
        created=asked
        if tpu create --accelerator-type="$ACCELERATOR" --version="$RUNTIME" --labels="launch=$TOKEN" --spot 2>"$scratch/err"; then
            created=yes
            continue
        fi
        created=yes
        cat "$scratch/err" >&2
        if grep -q -e PERMISSION_DENIED -e UNAUTHENTICATED -e INVALID_ARGUMENT "$scratch/err"; then
            say "the slice cannot be created like this; check PROJECT, ZONE, ACCELERATOR and RUNTIME"
            exit 2
        fi
        say "no slice (try $try of $CREATE_TRIES); the next try is in $WAIT s"
        pause
    done
    say "no slice after $CREATE_TRIES tries; try another ZONE, or raise CREATE_TRIES"
    exit 1
}

install() { # On every host; does nothing where it was done. gcloud repeats a command whose connection broke: hence the lock.
    local marker=launch/installed
    on all "mkdir -p launch && exec 9>launch/lock && flock 9 && { test -f $marker || {
        rm -rf resnet_jax venv && git clone $(printf %q "$REPOSITORY") resnet_jax &&
        git -C resnet_jax checkout --quiet $(printf %q "$REVISION") &&
        python3 -m pip install --quiet --user uv && ~/.local/bin/uv venv --python 3.12 venv &&
        ~/.local/bin/uv pip install --python venv/bin/python --editable 'resnet_jax[tpu,gcs]' && touch $marker; }; }" &&
        on all "test -f $marker"
}

start() { # Detached on every host, and once, however often gcloud sends the command.
    training=$TOKEN-$((++attempt))
    local train arguments
    train=$(printf '%q ' ../venv/bin/python train.py --config="$CONFIG" --config.data.source="$BUCKET/imagenet" \
        --workdir="$BUCKET/runs/$NAME")
    arguments="export JAX_PLATFORMS=tpu,cpu RESNET_JAX_DATA_CACHE=/tmp/resnet_jax_data; cd ~/resnet_jax
        $train & echo \$! > ../launch/$training/pid; wait \$!; echo \$? > ../launch/$training/new
        mv ../launch/$training/new ../launch/$training/code"
    on all "trap '' HUP; mkdir launch/$training 2>/dev/null || exit 0
        for old in launch/*/pid; do # A process that hangs holds the chips.
            test ! -f \$old || test -f \${old%pid}code || kill -KILL \$(cat \$old) 2>/dev/null; done
        setsid bash -c $(printf %q "$arguments") > launch/$training/log 2>&1 < /dev/null &
        until test -s launch/$training/pid; do sleep 0.02; done"
}

follow() { # Shows the first host's log until its process ends, and sets code; fails when the host does not answer any more.
    local lost=0 shown=0
    while ((lost < 10)); do
        # The code is written a moment after the process ended.
        if on 0 "cd launch/$training && { for try in {1..100}; do
                code=\$(cat code 2>/dev/null) && break
                kill -0 \$(cat pid) 2>/dev/null && code=running && break
                code=1; sleep 0.05; done
            lines=\$(wc -l < log); head -n \$lines log | tail -n +$((shown + 1)); echo \"\$code \$lines\"; }" \
            >"$scratch/out" 2>"$scratch/err"; then
            lost=0
            sed '$d' "$scratch/out"
            read -r code shown < <(tail -n 1 "$scratch/out")
            [[ $code == running ]] || return 0
        else
            lost=$((lost + 1))
            look
            [[ $state == READY ]] || return 1
        fi
        pause
    done
    cat "$scratch/err" >&2
    return 1
}

say "creates the slice $NAME and deletes it at the end; if this script is killed, delete it: $DELETE"
failures=0
while true; do
    create
    SECONDS=0
    code=1
    if ! install; then
        say "installing failed on a host"
    elif ! start || ! follow; then
        say "the hosts do not answer"
    fi
    training=''
    case $code in
        0 | 2) exit "$code" ;;
        75) say "stopped and saved; resuming" ;;
    esac
    look
    # A slice that is there and fails again and again is not preempted: something is wrong.
    ((SECONDS < 3600)) || failures=0
    if [[ $state == READY && $code != 75 ]] && ((++failures == 3)); then
        say "failed three times on a slice that is there; the messages above say why"
        exit 1
    fi
    pause
done
