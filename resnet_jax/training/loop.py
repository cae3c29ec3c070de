"""The training loop, written once, over what is trained: a run, or the seeds of a recipe in one program."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from resnet_jax.data.batches import HostBatch, Numbered, read_ahead, reading_threads
from resnet_jax.errors import RESUMABLE, ResNetError
from resnet_jax.training.config_sections import RunConfig
from resnet_jax.training.logging import Clock
from resnet_jax.training.stopwatch import Stopwatch

Metrics = TypeVar("Metrics")
Tested = TypeVar("Tested")


class DivergedError(ResNetError):
    """The loss or the gradient is not a finite number; the message names the step and what to try."""


class Interrupted(ResNetError):  # noqa: N818 (it is not an error)
    """The run was asked to stop, and is saved."""

    exit_code = RESUMABLE


class Trainer(Protocol[Metrics, Tested]):
    """What the loop trains. It holds the state on the devices, and the files that the run writes."""

    def step(self, number: int, batch: HostBatch) -> Metrics:
        """Starts a step and returns its metrics, which are still being computed."""

    def report(self, number: int, metrics: Metrics, tested: Tested | None, clock: Clock) -> None:
        """Waits for the metrics of a step, checks, shows and logs them.

        Raises:
            DivergedError: The loss or the gradient is not finite.
        """

    def settle(self) -> None:
        """Returns when the state is computed."""

    def evaluate(self) -> Tested:
        """Returns the metrics of the test split."""

    def save(self, number: int, tested: Tested | None) -> None:
        """Starts to save the state after a step."""

    def wait(self) -> None:
        """Returns when everything is saved."""


def train_steps(
    trainer: Trainer[Metrics, Tested],
    batches: Numbered[HostBatch],
    *,
    start: int,
    options: RunConfig,
    images: int,
    stop: Callable[[int], bool],
    stopwatch: Stopwatch,
) -> None:
    """Makes the steps from `start` to `options.steps`. While one is computed, the one before it is reported.

    No more than these two are under way: more deadlock the collectives on CPU, and gain nothing elsewhere,
    since a step takes longer than its dispatch.

    Args:
        trainer: What is trained.
        batches: Training batches by step, read ahead in the background.
        start: Step that the state stands at.
        options: Section `run` of the config.
        images: Number of images of a step, to report the speed.
        stop: Is asked after every step whether to save and stop.
        stopwatch: Measures what the time is spent on; `starting` ends here.

    Raises:
        DivergedError: The loss or the gradient is not finite; what it made of the state is not saved.
        Interrupted: `stop` said so, and the state is saved.
    """
    pending: tuple[int, Metrics] | None = None
    clock = Clock(images, stopwatch)
    ahead = read_ahead(
        batches,
        start,
        options.steps,
        workers=reading_threads(options.workers),
        buffer=options.read_ahead,
        processes=options.worker_processes,
    )
    for step, batch in enumerate(clock.time_waiting(ahead), start=start + 1):
        metrics = trainer.step(step, batch)
        stopwatch.enter("computing")  # The first step was compiled before it was dispatched.
        if pending:
            trainer.report(*pending, None, clock)
        pending = step, metrics
        stopped, last = stop(step), step == options.steps
        evaluated = last or step % options.evaluate_every == 0
        saved = last or stopped or step % options.checkpoint_every == 0
        if evaluated or saved:
            trainer.settle()
            with stopwatch.measure("evaluation"):
                tested = trainer.evaluate() if evaluated else None
            trainer.report(*pending, tested, clock)
            pending = None
        if saved:
            with stopwatch.measure("saving"):
                trainer.save(step, tested)
        if stopped and not last:
            with stopwatch.measure("saving"):
                trainer.wait()
            raise Interrupted(f"stopped and saved at step {step}; run the same command again to resume")
    with stopwatch.measure("saving"):
        trainer.wait()
