"""Draws the two pictures of docs/detection.md: detections in unseen scenes, and mAP over the steps.

    for s in 0 1 2; do
        resnet-jax train --config=faster_rcnn:scenes --config.seed=$s --workdir=runs/scenes$s
    done
    python benchmarks/detection_figures.py runs/scenes0 runs/scenes1 runs/scenes2 --to docs

Prints the mAP of every run and the median, as JSON with `--json`.
"""

import argparse
import json
import statistics
from pathlib import Path

import PIL.Image
from matplotlib.figure import Figure

import resnet_jax as rj
from resnet_jax.data.scenes import scene
from resnet_jax.detection.pictures import draw_detections
from resnet_jax.training.logging import read_metrics

SHOWN = (0, 1, 3, 4, 11, 16)
"""Numbers of the scenes that are drawn: with one object and several, cut, covered and pale."""


def main() -> None:
    """Draws the pictures and prints the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", metavar="WORKDIR", help="runs of faster_rcnn:scenes")
    parser.add_argument("--to", default="docs", metavar="DIR", help="folder of the pictures (default: docs)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    folder = Path(arguments.to)
    detector = rj.load(arguments.runs[0])
    pictures = [scene("test", number).image for number in SHOWN]
    drawn = [draw_detections(*pair) for pair in zip(pictures, detector.detect(pictures), strict=True)]
    side = drawn[0].width
    sheet = PIL.Image.new("RGB", (3 * side, 2 * side))
    for place, picture in enumerate(drawn):
        sheet.paste(picture, (place % 3 * side, place // 3 * side))
    sheet.resize((3 * side // 2, side), PIL.Image.Resampling.LANCZOS).save(folder / "detection_scenes.png")

    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.add_subplot(xlabel="steps", ylabel="mAP@.5 on unseen scenes", ylim=(0, 1))
    last = {}
    for run in arguments.runs:
        tested = [record for record in read_metrics(run) if "test_mAP50" in record]
        last[run] = tested[-1]["test_mAP50"]
        steps = [record["step"] for record in tested]
        axes.plot(
            steps, [record["test_mAP50"] for record in tested], marker="o", markersize=3, label=Path(run).name
        )
    axes.grid(linestyle=":", linewidth=0.6)
    axes.legend(frameon=False)
    figure.savefig(folder / "detection_curve.png", dpi=160)
    result = {"mAP50": last, "mAP50_median": statistics.median(last.values())}
    if arguments.json:
        print(json.dumps(result))
    else:
        print("\n".join(f"{run}: {value:.2%}" for run, value in last.items()))
        print(f"median: {result['mAP50_median']:.2%}")


if __name__ == "__main__":
    main()
