"""What is asked for: a table or a figure, the data and the budget; and the recipes and runs that it is made from."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

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
class Place:
    """Where runs and data are.

    Attributes:
        workdir: Directory below which every run has its own.
        data_dir: Data directory of TFDS; empty is the default.
        source: Source of ImageNet: a folder, a prepared set or a TFDS set; empty is the recipe's.
    """

    workdir: Path
    data_dir: str = ""
    source: str = ""


@dataclasses.dataclass(frozen=True)
class Request:
    """What is to be made.

    Attributes:
        name: "table2" … "table6", "fig1", "fig4", "fig6", "fig7".
        data: Name of the dataset; empty is the paper's.
        seeds: Number of seeds, from 0.
        budget: Share of the iterations.
        place: Where runs and data are.
        nets: Only these, by the recipe's argument; empty is all.
        deepest: Include the net of 1202 layers on the digits.
    """

    name: str
    data: str
    seeds: int
    budget: float
    place: Place
    nets: Sequence[str] = ()
    deepest: bool = False

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

    def run(self, net: str, seed: int) -> SweepRun:
        """Returns a run of a net."""
        data, family = self.chosen_data, self.subject.data
        return plan_run(net, data=data, family=family, seed=seed, budget=self.budget, place=self.place)

    def runs(self) -> dict[Member, SweepRun]:
        """Returns the runs that the table or figure is made from, each once.

        Raises:
            PaperError, ConfigError: There are none, or a net, the seeds or the budget are not possible.
        """
        check_seeds(self.seeds)
        if isinstance(self.subject, Table):
            rows = chosen_rows(self, self.subject)
            members = [
                member for row in rows for seed in range(self.seeds) for member in members_of(row, seed)
            ]
        else:
            members = [(net, seed) for net in nets_of(self) for seed in range(self.seeds)]
        if not members:
            raise PaperError(f"{self.name} has no net to train among {', '.join(self.nets)}")
        return {member: self.run(*member) for member in dict.fromkeys(members)}


def plan_run(net: str, *, data: str, family: str, seed: int, budget: float, place: Place) -> SweepRun:
    """Returns a run of a net.

    Args:
        net: Argument of the recipe of the family.
        data: "imagenet", "cifar10" or "digits".
        family: The paper's dataset, whose nets these are.
        seed: Seed of the run.
        budget: Share of the iterations; the steps at which the rate falls are scaled with them.
        place: Where runs and data are.
    """
    recipe = full_recipe(net, data=data, family=family)
    config = scale_steps(recipe, budget)
    steps = config.run.steps
    fields: dict[str, object] = {
        "seed": seed,
        "run.data_dir": place.data_dir or None,
        "run.evaluate_every": min(recipe.run.evaluate_every, max(1, steps // EVALUATIONS)),
        "run.checkpoint_every": min(recipe.run.checkpoint_every, max(1, steps // CHECKPOINTS)),
        "run.log_every": min(recipe.run.log_every, max(1, steps // RECORDS)),
    }
    if place.source and data == "imagenet":
        fields["data.source"] = place.source
    workdir = epath.Path(place.workdir) / data / f"{net.replace(',', '_')}_{steps}_seed{seed}"
    return SweepRun(net, with_fields(config, fields), workdir)


def full_recipe(net: str, *, data: str, family: str) -> Config:
    """Returns the recipe of a net at budget 1; on the digits that of the digits, with the net and the warm-up of the other."""
    recipe = load_recipe(f"{family}:{net}")
    if data != DIGITS:
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


def nets_of(request: Request) -> list[str]:
    """Returns the nets that are to be trained, by the recipe's argument, each once."""
    subject = request.subject
    if isinstance(subject, Table):
        groups = [list(row.nets) for row in chosen_rows(request, subject)]
    else:
        groups = list(chosen_panels(request, subject).values())
    return list(dict.fromkeys(net for nets in groups for net in nets))


def members_of(row: Row, seed: int) -> list[Member]:
    """Returns nets and seeds that a row needs: of a net that an ensemble has twice, the second has a seed 1,000 higher."""
    return [(net, seed + 1000 * row.nets[:index].count(net)) for index, net in enumerate(row.nets)]


def chosen_rows(request: Request, table: Table) -> list[Row]:
    """Returns the rows of a table, those of other nets of the family that were named among them."""
    rows = [row for row in table.rows if not request.nets or set(row.nets) & set(request.nets)]
    known = {net for row in table.rows for net in row.nets}
    rows += [Row(net, (net,)) for net in request.nets if net not in known]
    if request.deepest or request.nets or request.chosen_data != DIGITS:
        return rows
    return [row for row in rows if DEEPEST not in row.nets]


def chosen_panels(request: Request, figure: Figure) -> dict[str, list[str]]:
    """Returns the panels of a figure with the nets that are wanted; on the digits those of its miniature."""
    small = request.chosen_data == DIGITS
    panels = {}
    for title, nets in figure.panels.items():
        kind = {"plain": "plain", "residual": "resnet"}.get(title, "")
        if title == DEEP_PANEL and (request.nets or (small and not request.deepest)):
            continue
        if request.nets:
            panels[title] = [net for net in request.nets if net.startswith(kind)]
        elif kind and small and figure.miniature:
            panels[title] = [f"{kind}{depth}" for depth in figure.miniature]
        else:
            panels[title] = list(nets)
    return panels
