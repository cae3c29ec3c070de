"""Multi-process training: joining the group, checking that all processes agree, and leaving it."""

import contextlib
import importlib.util
import json
import os
import signal
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any, Self

import jax
from jax._src import distributed  # The key-value store has no public name.

from resnet_jax.console import print_note
from resnet_jax.errors import DONE, FAILED, RESUMABLE, ResNetError, UsageError, exit_status
from resnet_jax.files import JsonObject
from resnet_jax.parallel import watchdog
from resnet_jax.parallel.native_output import silence_native_output

JOINING_SECONDS = 300
_HOW_TO_JOIN = (
    "check that all were started and reach the first, name them by --coordinator, --processes and --process, "
    "or train on this one alone with --processes=1"
)
_ANSWER_MS = 600_000
_SHOWN = 6


class ProcessError(UsageError):
    """Processes that were started wrongly or differently; the message names them and what to do."""


class AbsentProcessError(ResNetError):
    """Processes that did not come in time. Exit code 1, so that launchers start all again."""


_STOPPING = "\nresnet-jax: stopping: the current step is finished and saved; a second Ctrl-C stops at once\n"


class Processes:
    """The processes of a run, and this one's place among them; one alone until it joins others.

    Attributes:
        index: Number of this process.
        count: Number of all processes.
    """

    def __init__(self) -> None:
        self.index, self.count = 0, 1
        self._watch: watchdog.Watch | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Leaves the process group. On failure, prints why, tells the other processes, and ends this one."""
        code, reason = (exit_status(error) if error else None) or (FAILED, "")
        if not self._watch or error is None or code == RESUMABLE:
            return self.part(DONE, "")
        if exit_status(error) is None:
            self.await_verdict()
            traceback.print_exception(error)
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        if reason:
            print_note(reason)
        return self.part(code, reason or "its output was closed")

    @property
    def first(self) -> bool:
        """Whether this is the process that writes what is written once, and speaks to the person."""
        return self.index == 0

    def join(self, *, coordinator: str = "", count: int | None = None, index: int | None = None) -> None:
        """Joins the others; before JAX is used for the first time.

        Without arguments they are found as JAX finds them on Cloud TPU, SLURM, Open MPI, and in indexed jobs
        and JobSets of Kubernetes; outside of these, this process is alone.

        Args:
            coordinator: HOST:PORT of the first process, on which it listens and the others find it.
            count: Number of all processes; 1 alone is this one, wherever it runs.
            index: Number of this process, from 0.

        Raises:
            ProcessError: An argument is missing or wrong.
            AbsentProcessError: The others do not come in time.
        """
        explicit = coordinator or count is not None or index is not None
        if (not coordinator and count == 1 and not index) or not (explicit or _may_be_one_of_several()):
            return
        if explicit:
            _check(coordinator, count, index)
        else:
            _check_kubernetes()
        watchdog.on_abort(_nobody_came)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Of clusters that this is not.
                jax.distributed.initialize(
                    coordinator or None,
                    count,
                    index,
                    cluster_detection_method="deactivate" if explicit else None,
                    initialization_timeout=JOINING_SECONDS,
                    heartbeat_timeout_seconds=30,
                    shutdown_timeout_seconds=JOINING_SECONDS,
                )
        except Exception as error:
            if not explicit and any(
                text in str(error) for text in ("should be defined", "must be called before")
            ):
                return  # JAX knows no cluster here, or is in use already.
            raise AbsentProcessError(
                f"the processes could not join: {' '.join(str(error).split())[:300]}; {_HOW_TO_JOIN}"
            ) from error
        finally:
            signal.signal(signal.SIGABRT, signal.SIG_DFL)
        state: Any = distributed.global_state
        self.index, self.count = state.process_id, state.num_processes
        if self.count > 1:
            silence_native_output()
            self._watch = watchdog.Watch(
                state.client,
                index=self.index,
                count=self.count,
                name=f"{socket.gethostname()}, process id {os.getpid()}",
                coordinator=state.coordinator_address,
            )

    def agree(self, topic: str, facts: Mapping[str, object]) -> None:
        """Compares facts that must be the same on all processes; every process calls it, with the same topic.

        Raises:
            ProcessError: Some differ; they are named, with who has which.
            AbsentProcessError: A process does not answer.
        """
        if self.count == 1:
            return
        client: Any = distributed.global_state.client
        client.key_value_set(f"resnet_jax/{topic}/{self.index}", json.dumps(dict(facts)))
        answers = []
        for process in range(self.count):
            try:
                answers.append(
                    json.loads(client.blocking_key_value_get(f"resnet_jax/{topic}/{process}", _ANSWER_MS))
                )
            except Exception as error:
                raise AbsentProcessError(
                    f"process {process} did not say its {topic} within {_ANSWER_MS // 1000} s"
                ) from error
        if differences := _differences(answers):
            if len(differences) > _SHOWN:
                differences[_SHOWN:] = [f"and {len(differences) - _SHOWN} more"]
            raise ProcessError(
                f"the processes do not have the same {topic}: {'; '.join(differences)}; "
                "start all with the same command, set up alike"
            )

    @contextlib.contextmanager
    def stop_signals(self, start: int) -> Iterator[Callable[[int], bool]]:
        """Yields a function of the step that tells all processes, at the same step, to save and stop.

        On several processes SIGTERM, or Ctrl-C, to any of them is passed on by JAX, which finds a step that
        none has reached.

        Args:
            start: The step that the run resumes from.
        """
        received: list[int] = []
        several = self.count > 1

        def handle(number: int, _: FrameType | None) -> None:
            received.append(number)
            os.write(2, _STOPPING.encode())
            # The second signal acts at once, as without this.
            signal.signal(number, previous[signal.Signals(number)])
            if several:
                os.kill(os.getpid(), signal.SIGTERM)  # JAX has a handler of its own for it, which must stay.

        previous = {
            number: signal.signal(number, handle)
            for number in ([signal.SIGINT] if several else [signal.SIGTERM, signal.SIGINT])
        }
        if several:
            self._reached(start)
        try:
            yield self._reached if several else lambda _: bool(received)
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def await_verdict(self) -> None:
        """Gives the watchdog time to end this process, if an operation failed because another one is gone."""
        if self._watch:
            time.sleep(watchdog.PATIENCE + 3 * watchdog.INTERVAL)

    def part(self, code: int, reason: str) -> None:
        """Leaves the process group. On failure, tells the other processes why; else all wait for each other.

        Does not return after a failure on several processes: leaving JAX in order would wait for those that
        cannot come.
        """
        if not self._watch:
            return
        if reason:
            self._watch.tell(code, reason)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        self._watch.close()
        jax.distributed.shutdown()

    @staticmethod
    def _reached(step: int) -> bool:
        from jax.experimental import multihost_utils

        return multihost_utils.reached_preemption_sync_point(step)


def _nobody_came() -> None:
    os.write(
        2, f"resnet-jax: the processes could not join within {JOINING_SECONDS} s; {_HOW_TO_JOIN}\n".encode()
    )
    os._exit(FAILED)


def _may_be_one_of_several() -> bool:
    # JAX raises, or warns, in a pod that is not of an indexed job.
    return (
        "KUBERNETES_SERVICE_HOST" not in os.environ
        or "JOB_COMPLETION_INDEX" in os.environ
        or "TPU_WORKER_ID" in os.environ
    )


def _check_kubernetes() -> None:
    # JAX could not find the other pods, and each would train by itself.
    if (
        "KUBERNETES_SERVICE_HOST" in os.environ
        and "TPU_WORKER_ID" not in os.environ
        and importlib.util.find_spec("kubernetes") is None
    ):
        raise ProcessError(
            "this pod is one of an indexed job, and the package kubernetes finds the others: "
            "pip install 'jax[k8s]', or name them by --coordinator, --processes and --process, "
            "or train on this one alone with --processes=1"
        )


def _check(coordinator: str, count: int | None, index: int | None) -> None:
    missing = [
        name
        for name, value in (
            ("--coordinator", coordinator or None),
            ("--processes", count),
            ("--process", index),
        )
        if value is None
    ]
    if missing or count is None or index is None:
        raise ProcessError(
            f"--coordinator, --processes and --process belong together; give {' and '.join(missing)} too"
        )
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise ProcessError(
            f"--coordinator is {coordinator!r}; it must be HOST:PORT of process 0, such as 10.0.0.1:8476"
        )
    if not 0 <= index < count:
        raise ProcessError(
            f"--process is {index} and --processes {count}; processes are numbered from 0 to {count - 1}"
        )


def _differences(answers: list[JsonObject]) -> list[str]:
    lines = []
    for name in sorted(set().union(*answers)):
        holders: dict[str, list[int]] = {}
        for process, facts in enumerate(answers):
            holders.setdefault(json.dumps(facts[name]) if name in facts else "absent", []).append(process)
        if len(holders) > 1:
            who = (f"{value} on process {_numbers(processes)}" for value, processes in holders.items())
            # Such as `batch_size (16 on process 0, 32 on process 1)`.
            lines.append(f"{name} ({', '.join(who)})")
    return lines


def _numbers(processes: list[int]) -> str:
    return ", ".join(map(str, processes[:_SHOWN])) + (" …" if len(processes) > _SHOWN else "")
