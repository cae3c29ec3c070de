"""Stand-ins for gcloud, and for the training on the hosts of its slice.

Run as `stand_in.py PROGRAM ARGUMENTS`. $STAND_IN is a folder: `plan.json` says what happens at the next
calls, `calls.txt` records them, `slice.json` is the slice that is billed, `hosts/N` is the home of host N.
Commands for the hosts are executed there by bash, so their quoting is tested too.
"""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

WORLD = Path(os.environ["STAND_IN"])
SLICE = WORLD / "slice.json"
HOSTS = 2


def planned(what, default="ok"):
    """Takes the next of the planned outcomes of something."""
    path = WORLD / "plan.json"
    with (WORLD / "plan.lock").open("w") as lock:  # Others read it too, and a signal may end this process.
        fcntl.flock(lock, fcntl.LOCK_EX)
        plan = json.loads(path.read_text())
        outcome = plan[what].pop(0) if plan.get(what) else default
        new = WORLD / "plan.new"
        new.write_text(json.dumps(plan))
        new.replace(path)
    return outcome


def record(line):
    with (WORLD / "calls.txt").open("a") as file:
        file.write(line + "\n")


def fail(text):
    print(f"ERROR: (gcloud.compute.tpus.tpu-vm) {text}", file=sys.stderr)
    return 1


def describe():
    outcome = planned("describe")
    if outcome != "ok":
        return fail(outcome)
    if not SLICE.exists():
        return fail("NOT_FOUND: Resource 'projects/p/locations/z/nodes/n' was not found")
    held = json.loads(SLICE.read_text())
    print(f"{held['state']}\t{held['label']}")
    return 0


def create(options):
    outcome = planned("create")
    label = options["--labels"].removeprefix("launch=")
    if outcome == "hangs":
        SLICE.write_text(json.dumps({"state": "CREATING", "label": label}))
        (WORLD / "creating").touch()
        time.sleep(60)
    if outcome == "taken":
        SLICE.write_text(json.dumps({"state": "READY", "label": "another"}))
        return fail("ALREADY_EXISTS")
    if outcome == "partial":
        SLICE.write_text(json.dumps({"state": "REPAIRING", "label": label}))
        return fail("INTERNAL: the operation failed")
    if outcome != "ok":
        return fail(outcome)
    SLICE.write_text(json.dumps({"state": "READY", "label": label}))
    for host in range(HOSTS):  # New machines have empty disks.
        home = WORLD / "hosts" / str(host)
        subprocess.run(["rm", "-rf", home], check=True)
        home.mkdir(parents=True)
    return 0


def delete():
    outcome = planned("delete")
    if outcome != "ok":
        return fail(outcome)
    SLICE.unlink()
    for process in (WORLD / "processes").iterdir():  # They end with their machine.
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(process.suffix[1:]), signal.SIGKILL)
        process.unlink()
    return 0


def ssh(options):
    chosen = range(HOSTS) if options["--worker"] == "all" else [int(options["--worker"])]
    repeat = 1 + (planned("repeat", "") == "repeat")
    codes = []
    for host in chosen:
        if not SLICE.exists() or json.loads(SLICE.read_text())["state"] != "READY" or planned("ssh") != "ok":
            return 255
        home = WORLD / "hosts" / str(host)
        for _ in range(repeat):
            path = f"{WORLD / 'bin'}:/usr/bin:/bin"
            environment = {"HOME": str(home), "PATH": path, "STAND_IN": str(WORLD), "HOST": str(host)}
            done = subprocess.run(["bash", "-c", options["--command"]], cwd=home, env=environment)
        codes.append(done.returncode)
    return next((code for code in codes if code), 0)


def gcloud(arguments):
    _, _, _, verb, name, *rest = arguments
    options = dict(option.partition("=")[::2] for option in rest)
    record(f"{verb} {name} {options.get('--worker', '')}".strip())
    actions = {"create": lambda: create(options), "ssh": lambda: ssh(options)}
    return (actions | {"describe": describe, "delete": delete})[verb]()


def training(arguments):
    host = os.environ["HOST"]
    signal.signal(signal.SIGTERM, lambda *_: (record(f"host {host} saves"), sys.exit(75)))
    deadline = time.monotonic() + 1
    others = list((WORLD / "processes").glob(f"{host}.*"))
    while busy := any(Path("/proc", other.suffix[1:]).exists() for other in others):
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    if busy:
        record(f"chips of host {host} are in use")
    (WORLD / "processes" / f"{host}.{os.getpid()}").touch()
    names = ("JAX_PLATFORMS", "RESNET_JAX_DATA_CACHE")
    settings = " ".join(f"{name}={os.environ.get(name)}" for name in names)
    record(f"host {host} trains {' '.join(arguments)} {settings}")
    print(f"log of host {host}", flush=True)
    outcome = planned(f"train {host}", 0)
    if outcome == "runs":
        time.sleep(60)
    if outcome == "short":
        time.sleep(0.5)
        return 0
    if outcome == "preempted":
        time.sleep(0.3)
        held = json.loads(SLICE.read_text())
        SLICE.write_text(json.dumps(held | {"state": "PREEMPTED"}))
        time.sleep(60)
    return outcome


if __name__ == "__main__":
    sys.exit({f.__name__: f for f in (gcloud, training)}[sys.argv[1]](sys.argv[2:]))
