"""A request for a table or a figure on a dataset and with a budget, and the recipes and runs it needs."""

import dataclasses
from collections.abc import Sequence
from itertools import chain

from etils import epath

from resnet_jax.data.choices import DIGITS
from resnet_jax.paper import PaperError
from resnet_jax.paper.reported import FIGURES, TABLES, Figure, Row, Table
from resnet_jax.sweeps.scaled_recipes import scale_steps
from resnet_jax.sweeps.sweep import SweepRun, check_seeds
from resnet_jax.training.config import Config, with_fields
from resnet_jax.training.recipes import load_recipe

DIGITS_STEPS = 400
"""Iterations on the digits at budget 1: 36 epochs."""

EVALUATIONS, CHECKPOINTS, RECORDS = 20, 8, 200
"""Smallest numbers of these in a run that is long enough."""

DEEPEST = "resnet1202"
"""Left out on the digits unless asked for: it takes several times as long as all others together."""

DEEP_PANEL = "110 and 1202 layers"
"""Panel of Fig. 6 with the deepest net."""

Member = tuple[str, int]
"""A net, by the recipe's argument ("resnet56", "resnet34,A"), and a seed."""


@dataclasses.dataclass(frozen=True)
class Request:
    """What is to be made.

    Attributes:
        name: "table2" … "table6", "fig1", "fig4", "fig6", "fig7".
        data: Name of the dataset; empty is the paper's.
        workdir: Directory below which every run has its own.
        seeds: Number of seeds, from 0.
        budget: Share of the iterations; the steps at which the rate falls are scaled with them.
        nets: Only these, by the recipe's argument; empty is all.
        deepest: Include the net of 1202 layers on the digits.
        data_dir: Data directory of TFDS. Defaults to TFDS's own.
        source: Source of ImageNet: a folder, a prepared set or a TFDS set. Defaults to the recipe's.
    """

    name: str
    data: str
    workdir: epath.PathLike
    seeds: int = 1
    budget: float = 1.0
    nets: Sequence[str] = ()
    deepest: bool = False
    data_dir: str | None = None
    source: str | None = None

    @property
    def subject(self) -> Table | Figure:
        """The table or the figure."""
        return (TABLES | FIGURES)[self.name]

    @property
    def chosen_data(self) -> str:
        """Name of the dataset.

        Raises:
            PaperError: The table or figure cannot be made on it.
        """
        allowed = (self.subject.data, DIGITS)
        chosen = self.data or self.subject.data
        if chosen not in allowed:
            raise PaperError(f"{self.name} cannot be made on {chosen}; its data are {' or '.join(allowed)}")
        return chosen

    def recipe(self, net: str) -> Config:
        """Returns the recipe of a net at budget 1; on the digits theirs, with this net and its warm-up."""
        recipe = load_recipe(f"{self.subject.data}:{net}")
        if self.chosen_data != DIGITS:
            return recipe
        fields: dict[str, object] = {
            "model.name": recipe.model.name,
            "model.shortcut": recipe.model.shortcut,
            "optimizer.warmup_until_error": recipe.optimizer.warmup_until_error,
            "optimizer.warmup_rate": recipe.optimizer.warmup_rate,
            "optimizer.boundaries": (DIGITS_STEPS // 2, DIGITS_STEPS * 3 // 4),
            "run.steps": DIGITS_STEPS,
            "run.evaluate_every": DIGITS_STEPS,
            "run.checkpoint_every": DIGITS_STEPS,
            "run.remat": recipe.run.remat,
        }
        if not recipe.run.remat:
            fields["run.scan"] = "no"  # Faster from some hundred steps on.
        return with_fields(load_recipe("digits_resnet20"), fields)

    def run(self, net: str, seed: int = 0) -> SweepRun:
        """Returns a run of a net, named by the recipe's argument: "resnet56", "resnet34,A"."""
        recipe, data = self.recipe(net), self.chosen_data
        scaled = scale_steps(recipe, self.budget)
        steps = scaled.run.steps
        fields: dict[str, object] = {
            "seed": seed,
            "run.data_dir": self.data_dir or None,
            "run.evaluate_every": min(recipe.run.evaluate_every, max(1, steps // EVALUATIONS)),
            "run.checkpoint_every": min(recipe.run.checkpoint_every, max(1, steps // CHECKPOINTS)),
            "run.log_every": min(recipe.run.log_every, max(1, steps // RECORDS)),
        }
        if self.source and data == "imagenet":
            fields["data.source"] = self.source
        workdir = epath.Path(self.workdir) / data / f"{net.replace(',', '_')}_{steps}_seed{seed}"
        return SweepRun(net, with_fields(scaled, fields), workdir)

    def rows(self, table: Table) -> list[Row]:
        """Returns the rows of a table, those of other nets of the family that were named among them."""
        rows = [row for row in table.rows if not self.nets or set(row.nets) & set(self.nets)]
        known = {net for row in table.rows for net in row.nets}
        rows += [Row(net, (net,)) for net in self.nets if net not in known]
        if self.deepest or self.nets or self.chosen_data != DIGITS:
            return rows
        return [row for row in rows if DEEPEST not in row.nets]

    def panels(self, figure: Figure) -> dict[str, list[str]]:
        """Returns the panels of a figure with the nets that are wanted, on the digits its miniature."""
        small = self.chosen_data == DIGITS
        panels = {}
        for title, nets in figure.panels.items():
            kind = {"plain": "plain", "residual": "resnet"}.get(title, "")
            if title == DEEP_PANEL and (self.nets or (small and not self.deepest)):
                continue
            if self.nets:
                panels[title] = [net for net in self.nets if net.startswith(kind)]
            elif kind and small and figure.miniature:
                panels[title] = [f"{kind}{depth}" for depth in figure.miniature]
            else:
                panels[title] = list(nets)
        return panels

    def runs(self) -> dict[Member, SweepRun]:
        """Returns the runs that the table or figure is made from, each once.

        Raises:
            PaperError, ConfigError: There are none, or a net, the seeds or the budget are not possible.
        """
        check_seeds(self.seeds)
        subject, seeds = self.subject, range(self.seeds)
        if isinstance(subject, Table):
            groups = [members_of(row, seed) for row in self.rows(subject) for seed in seeds]
        else:
            groups = [
                [(net, seed) for seed in seeds] for nets in self.panels(subject).values() for net in nets
            ]
        runs = {member: self.run(*member) for member in dict.fromkeys(chain.from_iterable(groups))}
        if not runs:
            raise PaperError(f"{self.name} has no net to train among {', '.join(self.nets)}")
        return runs


def members_of(row: Row, seed: int) -> list[Member]:
    """Returns nets and seeds of a row; where an ensemble has a net twice, the second seed is 1,000 higher."""
    return [(net, seed + 1000 * row.nets[:index].count(net)) for index, net in enumerate(row.nets)]
