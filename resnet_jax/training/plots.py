"""The curves of a run, in the look of the paper's Fig. 6."""

import warnings

from etils import epath

from resnet_jax.training.logging import read_metrics
from resnet_jax.training.workdir import CURVES


def draw_curves(workdir: epath.Path, *, title: str) -> None:
    """Writes curves.png: training error (thin) and test error (bold) in per cent against iterations."""
    from matplotlib.figure import Figure  # Here: it takes half a second to import.

    records = read_metrics(workdir)
    tested = [record for record in records if "test_top1" in record]
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(*_errors(records, "top1"), color="tab:red", linewidth=0.8, alpha=0.7, label="train")
    axes.plot(
        *_errors(tested, "test_top1"), color="tab:red", linewidth=2, marker="o", markersize=3, label="test"
    )
    axes.set(title=title, xlabel="iterations", ylabel="error (%)", xlim=(0, None), ylim=(0, _limit(records)))
    axes.grid(linestyle=":", linewidth=0.6)
    axes.legend(frameon=False)
    with warnings.catch_warnings(), (workdir / CURVES).open("wb") as file:
        warnings.simplefilter("ignore")
        figure.savefig(file, format="png", dpi=160)


def _errors(records: list[dict[str, float]], name: str) -> tuple[list[float], list[float]]:
    return [record["step"] for record in records], [100 * (1 - record[name]) for record in records]


def _limit(records: list[dict[str, float]]) -> float:
    """Shows the first tenth of the run cut off, where the error starts at chance and would flatten the rest."""
    errors = sorted(_errors(records[len(records) // 10 :] or records, "top1")[1])
    return max(2.0, 1.3 * errors[int(0.98 * (len(errors) - 1))])
