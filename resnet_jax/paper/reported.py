"""What the paper reports (arXiv 1512.03385), in percent by table and row, and the nets of its figures."""

import dataclasses
from collections.abc import Sequence

DATASETS = ("imagenet", "cifar10", "digits")
"""Datasets that a table or a figure can be made on; the digits are the miniature of both others."""


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of a table.

    Attributes:
        name: As printed.
        nets: Arguments of the recipe of its data set, `cifar10:NET` or `imagenet:NET`; several are an
            ensemble, none is a net that the paper cites only.
        top1, top5: The paper's error; None where it has none.
        remark: Printed beside the paper's error.
    """

    name: str
    nets: tuple[str, ...] = ()
    top1: float | None = None
    top5: float | None = None
    remark: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of errors.

    Attributes:
        title: What the caption begins with.
        data: The paper's data set.
        protocol: Protocol of the evaluation.
        columns: "top1", "top5" or both, as the table has them.
        rows: In the paper's order.
    """

    title: str
    data: str
    protocol: str
    columns: Sequence[str]
    rows: Sequence[Row]


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure from trained nets.

    Attributes:
        title: What the caption begins with.
        data: The paper's data set.
        panels: Title and nets of each panel; Figs. 1 and 7 have the same nets in both of theirs.
        miniature: Depths that are shown on the digits.
        protocol: Protocol of the evaluation.
    """

    title: str
    data: str
    panels: dict[str, tuple[str, ...]]
    miniature: tuple[int, ...] = ()
    protocol: str = "single"


MULTIPLY_ADDS = {
    "resnet18": 1.8e9,
    "resnet34": 3.6e9,
    "resnet50": 3.8e9,
    "resnet101": 7.6e9,
    "resnet152": 11.3e9,
}
"""Table 1: "FLOPs" of one image of 224×224, by net."""

TABLE_1_SHORTCUTS = {"resnet18": "A", "resnet34": "A"}
"""Shortcuts of Table 2; the other networks have option B."""

TABLES = {
    "table2": Table(
        "Table 2. Top-1 error (%) on ImageNet validation, 10-crop; residual nets with shortcut A",
        "imagenet",
        "ten-crop",
        ("top1",),
        (
            Row("plain-18", ("plain18",), 27.94),
            Row("plain-34", ("plain34",), 28.54),
            Row("ResNet-18", ("resnet18,A",), 27.88),
            Row("ResNet-34", ("resnet34,A",), 25.03),
        ),
    ),
    "table3": Table(
        "Table 3. Error (%) on ImageNet validation, 10-crop",
        "imagenet",
        "ten-crop",
        ("top1", "top5"),
        (
            Row("VGG-16", (), 28.07, 9.33),
            Row("GoogLeNet", (), None, 9.15),
            Row("PReLU-net", (), 24.27, 7.38),
            Row("plain-34", ("plain34",), 28.54, 10.02),
            Row("ResNet-34 A", ("resnet34,A",), 25.03, 7.76),
            Row("ResNet-34 B", ("resnet34,B",), 24.52, 7.46),
            Row("ResNet-34 C", ("resnet34,C",), 24.19, 7.40),
            Row("ResNet-50", ("resnet50",), 22.85, 6.71),
            Row("ResNet-101", ("resnet101",), 21.75, 6.05),
            Row("ResNet-152", ("resnet152",), 21.43, 5.71),
        ),
    ),
    "table4": Table(
        "Table 4. Error (%) of single models on ImageNet validation, fully convolutional at several scales",
        "imagenet",
        "multi-scale",
        ("top1", "top5"),
        (
            Row("VGG (v5)", (), 24.4, 7.1),
            Row("PReLU-net", (), 21.59, 5.71),
            Row("BN-inception", (), 21.99, 5.81),
            Row("ResNet-34 B", ("resnet34,B",), 21.84, 5.71),
            Row("ResNet-34 C", ("resnet34,C",), 21.53, 5.60),
            Row("ResNet-50", ("resnet50",), 20.74, 5.25),
            Row("ResNet-101", ("resnet101",), 19.87, 4.60),
            Row("ResNet-152", ("resnet152",), 19.38, 4.49),
        ),
    ),
    "table5": Table(
        "Table 5. Top-5 error (%) of ensembles: the paper's on the ImageNet test set; "
        "ours, of the depths 18, 34, 50, 101, 152 and 152 (the paper names the last two only), "
        "on the validation set",
        "imagenet",
        "multi-scale",
        ("top5",),
        (
            Row("VGG (ILSVRC'14)", (), None, 7.32),
            Row("GoogLeNet (ILSVRC'14)", (), None, 6.66),
            Row("VGG (v5)", (), None, 6.8),
            Row("PReLU-net", (), None, 4.94),
            Row("BN-inception", (), None, 4.82),
            Row(
                "ResNet",
                ("resnet18,A", "resnet34,B", "resnet50", "resnet101", "resnet152", "resnet152"),
                None,
                3.57,
            ),
        ),
    ),
    "table6": Table(
        "Table 6. Error (%) on the CIFAR-10 test set",
        "cifar10",
        "single",
        ("top1",),
        (
            Row("ResNet-20", ("resnet20",), 8.75),
            Row("ResNet-32", ("resnet32",), 7.51),
            Row("ResNet-44", ("resnet44",), 7.17),
            Row("ResNet-56", ("resnet56",), 6.97),
            Row("ResNet-110", ("resnet110",), 6.43, remark="best of five; 6.61 ± 0.16"),
            Row("ResNet-1202", ("resnet1202",), 7.93),
        ),
    ),
}

CIFAR_PLAIN = ("plain20", "plain32", "plain44", "plain56")
CIFAR_RESIDUAL = ("resnet20", "resnet32", "resnet44", "resnet56", "resnet110")

FIGURES = {
    "fig1": Figure(
        "Fig. 1. Plain nets",
        "cifar10",
        {"training error": ("plain20", "plain56"), "test error": ("plain20", "plain56")},
    ),
    "fig4": Figure(
        "Fig. 4. Plain and residual nets",
        "imagenet",
        {"plain": ("plain18", "plain34"), "residual": ("resnet18,A", "resnet34,A")},
    ),
    "fig6": Figure(
        "Fig. 6. Plain and residual nets",
        "cifar10",
        {
            "plain": CIFAR_PLAIN,
            "residual": CIFAR_RESIDUAL,
            "110 and 1202 layers": ("resnet110", "resnet1202"),
        },
        miniature=(20, 56, 110),
    ),
    "fig7": Figure(
        "Fig. 7. Standard deviation of the responses of 3×3 layers, "
        "after BN, before the ReLU or the addition",
        "cifar10",
        dict.fromkeys(
            ("in layer order", "sorted by size"), ("plain20", "plain56", "resnet20", "resnet56", "resnet110")
        ),
    ),
}


def reported_error(net: str) -> float | None:
    """Returns the paper's top-1 error of a net of the recipes (Table 6, 2 or 3), None if it gives none."""
    rows = [row for name in ("table6", "table2", "table3") for row in TABLES[name].rows]
    return next((row.top1 for row in rows if row.nets == (net,)), None)
