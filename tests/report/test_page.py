import datetime
import json
import re
from pathlib import Path

import pytest

from resnet_jax.analysis import Analysis, Responses
from resnet_jax.report.page import write_page
from resnet_jax.report.run_records import read_runs
from resnet_jax.training.stopwatch import PARTS
from tests.report import workdirs
from tests.report.reading import Node, read

NOW = datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC)
HOSTILE = """</script><script>alert("1")</script> & 'so' on"""


def page_of(
    *paths: Path, mistakes: str = "not asked for", analyses: list[Analysis | str] | None = None
) -> Node:
    runs = read_runs([str(path) for path in paths])
    return read(write_page(runs, [mistakes] * len(runs), analyses or ["not asked for"] * len(runs), now=NOW))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    records = [workdirs.tested(step) if step % 5 == 0 else workdirs.record(step) for step in range(1, 21)]
    return workdirs.write(tmp_path / "first", records, **{"run.steps": 20})


def chart(page: Node, name: str) -> Node:
    (figure,) = [figure for figure in page.all("figure") if figure.one("h3").text == name]
    return figure


def column(table: Node, head: str) -> dict[str, str]:
    names, *rows = table.rows()
    return {row[0]: row[names.index(head)] for row in rows}


def test_the_page_has_one_title_sections_in_order_and_links_that_lead_to_them(run: Path) -> None:
    page = page_of(run)
    assert page.attributes["lang"] == "en"
    assert page.one("title").text == "first – report"
    assert page.one("h1").text == "first"
    sections = [section.attributes["id"] for section in page.all("section")]
    assert sections == ["results", "mistakes", "curves", "recipe", "speed", "wall-time", "responses"]
    assert [link.attributes["href"] for link in page.one("nav").all("a")] == [
        f"#{section}" for section in sections
    ]
    assert page.all("a")[0].attributes == {"href": "#results", "class": "skip"}
    assert [section.all("h2")[0].text for section in page.all("section")] == [
        link.text for link in page.one("nav").all("a")
    ]


def test_the_page_needs_nothing_beside_itself(run: Path) -> None:
    page = page_of(run)
    assert page.all("link") == []
    assert all("src" not in node.attributes for node in page.all("script"))
    assert re.findall(r"url\(|@import|https?:", page.one("style").text + page.all("script")[-1].text) == []


def test_a_task_of_its_own_is_reported_by_its_metrics(tmp_path: Path) -> None:
    records = [
        {
            "step": step,
            "loss": 2.0,
            "depth": 0.5,
            "test_depth": 0.25,
            "test_score": -step,
            "test_examples": 25,
            "time": 1.7e9,
        }
        for step in (1, 2, 3)
    ]
    page = page_of(workdirs.write(tmp_path / "first", records))
    assert "0.25 test depth" in page.one("section", id="results").one("ul").text
    assert column(page.one("section", id="results").one("table"), " first")["Test depth"] == "0.25"
    assert chart(page, "depth")
    assert chart(page, "score")


def test_the_results_are_those_of_the_records(run: Path) -> None:
    results = column(page_of(run).one("section", id="results").one("table"), " first")
    assert results["Test accuracy"] == "96.88 %"  # 1 - 0.625 / 20
    assert results["Test accuracy, best"] == "96.88 % at step 20"
    assert results["Test accuracy, top 5"] == "100.00 %"
    assert results["Test loss"] == "0.15"
    assert results["Test images"] == "25"
    assert results["Training loss (last tenth)"] == "0.1026"  # (2 / 19 + 2 / 20) / 2
    assert (results["Steps"], results["Images seen"]) == ("20", "320")
    assert (results["State"], results["Images per second"]) == ("complete", "100")
    assert "Parameters" not in results  # No checkpoint tells them.
    assert results["Last record"] == "2023-11-14 22:13 UTC"


def test_the_tables_behind_the_curves_hold_the_records(run: Path) -> None:
    figure = chart(page_of(run), "Loss")
    assert figure.one("table").rows()[0] == ["step", "training", "test"]
    assert column(figure, "training") == {"5": "0.4", "10": "0.2", "15": "0.1333", "20": "0.1"}
    assert column(figure, "test") == {"5": "0.6", "10": "0.3", "15": "0.2", "20": "0.15"}
    embedded = json.loads(figure.one("script", type="application/json").text)
    training, test = embedded["series"]
    assert training["x"] == list(range(1, 21))
    assert training["y"] == pytest.approx([2 / step for step in range(1, 21)], rel=1e-4)
    assert test["x"] == [5, 10, 15, 20]


def test_a_curve_is_drawn_where_its_values_are(run: Path) -> None:
    figure = chart(page_of(run), "Loss")
    low, high = json.loads(figure.one("script", type="application/json").text)["scales"]["log"]
    line = figure.one("div", class_="scale log").one("path", class_="line bold run0").attributes["d"]
    points = [tuple(map(float, point.split(","))) for point in line.removeprefix("M").split("L")]
    for (x, y), step in zip(points, (5, 10, 15, 20), strict=True):
        assert x == pytest.approx(1000 * step / 20, abs=0.1)
        assert low * (high / low) ** (1 - y / 1000) == pytest.approx(3 / step, rel=1e-3)


def test_every_chart_has_words_and_every_table_heads(run: Path) -> None:
    page = page_of(run)
    for picture in page.all("svg", role="img"):
        assert picture.attributes["aria-label"]
    assert (
        "training: from 2 at step 1 to 0.1 at step 20"
        in chart(page, "Loss").all("svg", role="img")[0].attributes["aria-label"]
    )
    assert len(page.all("figure")) == 6
    for head in page.all("th"):
        assert head.attributes["scope"] in ("row", "col")
    labels = [box.attributes["aria-label"] for box in page.all("div", class_="scrolling")]
    assert len(set(labels)) == len(labels)
    assert all(box.attributes["tabindex"] == "0" for box in page.all("div", class_="scrolling"))


def test_names_are_text(tmp_path: Path) -> None:
    """Two runs, so that the name stands in titles, legends, tables and in the script's data."""
    runs = [
        workdirs.write(tmp_path / folder / HOSTILE.replace("/", "∕"), [workdirs.tested(1)]) for folder in "ab"
    ]
    data = {"data.source": HOSTILE}
    runs.append(workdirs.write(tmp_path / "c", [workdirs.tested(2)], **data))
    page = page_of(*runs)
    name = f"a/{HOSTILE.replace('/', '∕')}"
    assert page.one("h1").text.startswith(name)
    assert name in page.one("section", id="results").one("table").rows()[0][1]
    assert (
        json.loads(chart(page, "Loss").one("script", type="application/json").text)["series"][0]["label"]
        == f"{name}, training"
    )
    assert column(page.one("section", id="results").one("table"), " c")["Data"] == HOSTILE
    assert len(page.all("script")) == len(page.all("figure")) + 1


def test_no_name_ends_the_data_of_the_script(tmp_path: Path) -> None:
    """Folders that make </script> of two runs' names, as they are told apart by two folders each."""
    runs = [workdirs.write(tmp_path / folder / "script><b>", [workdirs.tested(1)]) for folder in ("a<", "b<")]
    page = page_of(*runs)
    assert (
        json.loads(chart(page, "Loss").one("script", type="application/json").text)["series"][0]["label"]
        == "a</script><b>, training"
    )
    assert page.all("b") == page.one("section", id="results").all("b")


def test_long_records_are_thinned_and_it_is_said(tmp_path: Path) -> None:
    records = [
        workdirs.record(step, loss=50.0 if step == 7777 else 1 + 1e-3 * (step % 7))
        for step in range(1, 20_001)
    ]
    run = workdirs.write(tmp_path / "long", records)
    page = page_of(run)
    figure = chart(page, "Loss")
    series = json.loads(figure.one("script", type="application/json").text)["series"][0]
    assert len(series["x"]) <= 400
    assert [series["x"][0], series["x"][-1]] == [1, 20_000]
    band = figure.one("div", class_="scale log").one("path", class_="band run0").attributes["d"]
    assert "388.8," in band  # Step 7777 of 20,000.
    assert "thinned: their ends and extremes stay" in page.one("footer").text
    assert figure.one("summary").text == "Loss in numbers (40 of 20,000 steps)"
    assert "thinned" not in page_of(workdirs.write(tmp_path / "short", records[:20])).one("footer").text


def test_many_long_runs_stay_small(tmp_path: Path) -> None:
    records = [workdirs.tested(step) for step in range(1, 1501)]
    paths = [workdirs.write(tmp_path / f"run{number}", records, seed=number) for number in range(12)]
    runs = read_runs(list(map(str, paths)))
    assert len(write_page(runs, ["none"] * 12, ["none"] * 12, now=NOW)) < 1_500_000


def test_recipes_are_compared_by_field(run: Path, tmp_path: Path) -> None:
    other = workdirs.write(
        tmp_path / "other", [workdirs.tested(1)], **{"run.steps": 20, "optimizer.learning_rate": 0.2}
    )
    table, every = page_of(run, other).one("section", id="recipe").all("table")
    assert table.rows()[1:] == [["optimizer.learning_rate", "0.1", "0.2"]]
    assert ["model.name", "cifar_resnet8", "cifar_resnet8"] in every.rows()
    operation = [row[0].startswith("run.") for row in every.rows()[1:]]
    assert operation == sorted(operation)
    changed = page_of(other).one("section", id="recipe").all("table")[0]
    assert ["batch_size", "16"] in changed.rows()
    assert "optimizer.momentum" not in changed.text
    same = page_of(run, run).one("section", id="recipe")
    assert "do not differ in any field" in same.text


def test_an_import_and_a_run_without_a_step_are_said_to_be_so(tmp_path: Path) -> None:
    imported = workdirs.write(tmp_path / "imported", [], **{"data.source": ""})
    (imported / "metrics.jsonl").unlink()
    page = page_of(imported, workdirs.write(tmp_path / "new", []), mistakes="there is no checkpoint")
    assert "imported weights, not trained here" in page.one("section", id="results").text
    assert "at step 0 of 60" in page.one("section", id="results").text
    assert "no step is recorded" in page.one("section", id="curves").text
    assert "imported is left out: there is no checkpoint." in page.one("section", id="mistakes").text


def test_overlapping_records_are_counted(tmp_path: Path) -> None:
    records = [*map(workdirs.record, range(1, 8)), *map(workdirs.record, range(5, 10))]
    page = page_of(workdirs.write(tmp_path / "resumed", records))
    assert "resumed: 3 records were written twice" in page.one("footer").text


def test_responses_are_drawn_in_order_and_by_size(run: Path) -> None:
    deviations = {"stem/conv": 0.5, "stage1/block1/conv1": 2.0, "stage1/block1/conv2": 1.0}
    found = Analysis("cifar_resnet8", 20, "test", 25, Responses(deviations, {"stage1/block1": 0.25}))
    page = page_of(run, analyses=[found])
    assert column(chart(page, "In the order of the layers").one("table"), "In the order of the layers") == {
        "stem/conv": "0.5",
        "stage1/block1/conv1": "2",
        "stage1/block1/conv2": "1",
    }
    by_size = chart(page, "From the largest to the smallest")
    assert [row[1] for row in by_size.one("table").rows()[1:]] == ["2", "1", "0.5"]
    assert chart(page, "Distance of each block from the identity").one("table").rows()[1] == [
        "stage1/block1",
        "0.25",
    ]
    assert "over the first 25 images" in page.one("section", id="responses").text


def test_a_net_that_gives_no_number_is_drawn_without_it(run: Path) -> None:
    deviations = {"stem/conv": 0.5, "stage1/block1/conv1": float("nan"), "stage1/block1/conv2": 1.0}
    page = page_of(run, analyses=[Analysis("cifar_resnet8", 20, "test", 25, Responses(deviations, {}))])
    rows = chart(page, "In the order of the layers").one("table").rows()[1:]
    assert rows == [["stem/conv", "0.5"], ["stage1/block1/conv2", "1"]]
    assert len(page.one("section", id="responses").all("figure")) == 2


def luminance(color: str) -> float:
    channels = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colors_are_told_from_the_ground(run: Path, scheme: int) -> None:
    """WCAG 2.2: 4.5 for text, 3 for what is drawn."""
    blocks = re.findall(r":root \{(.*?)\}", page_of(run).one("style").text, re.DOTALL)
    colors = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", blocks[scheme]))
    grounds = [luminance(colors[name]) for name in ("page", "surface")]
    least = (
        {"text": 4.5, "quiet": 4.5, "link": 4.5} | {f"run{number}": 3 for number in range(6)} | {"focus": 3}
    )
    for name, ratio in least.items():
        for ground in grounds:
            high, low = sorted((luminance(colors[name]), ground), reverse=True)
            assert (high + 0.05) / (low + 0.05) >= ratio, name


def with_wall_time(record: dict[str, float], starts: int, **seconds: float) -> dict[str, float]:
    """Adds the wall time that a run measures to a record."""
    parts = {f"seconds_{part}": float(seconds.get(part, 0)) for part in PARTS}
    return {**record, "starts": starts, **parts}


def test_wall_time_is_divided_into_parts(run: Path, tmp_path: Path) -> None:
    """The newest record counts, unless wall_time.json is newer; what is older than the measuring is said."""
    parts = {"computing": 3000, "input": 300, "saving": 120, "starting": 100, "lost": 80, "down": 7200}
    records = [workdirs.record(1), *(with_wall_time(workdirs.record(2 + k), 2, **parts) for k in range(2))]
    records[1]["seconds_computing"] = 1000.0
    measured = workdirs.write(tmp_path / "measured", records)
    section = page_of(measured, run).one("section", id="wall-time")
    shown = column(section.one("table"), " measured")
    assert shown == {
        "Computing": "50 min 00 s (83.33 %)",
        "Waiting for input": "5 min 00 s (8.33 %)",
        "Evaluation": "0 s (0.00 %)",
        "Saving": "2 min 00 s (3.33 %)",
        "Restoring": "0 s (0.00 %)",
        "Starting": "1 min 40 s (2.78 %)",
        "Lost steps": "1 min 20 s (2.22 %)",
        "Up, in all": "1 h 00 min",
        "Down between starts": "2 h 00 min",
        "Starts": "2",
    }
    bar = section.one("div", class_="bar")
    shares = [float(part.attributes["style"].removeprefix("--share:")) for part in bar.all("span")]
    assert shares == pytest.approx([5 / 6, 1 / 12, 1 / 30, 1 / 36, 1 / 45], abs=1e-5)
    assert "computing 83.33 %, waiting for input 8.33 %, saving 3.33 %" in bar.attributes["aria-label"]
    assert "measured: goodput 83.33 %" in section.text
    assert "measured: measured from step 1 on" in section.text
    assert "first is left out: no record holds the wall time." in section.text
    later = with_wall_time({"step": 3, "time": 1.8e9}, 3, **parts)
    (measured / "wall_time.json").write_text(json.dumps(later))
    assert column(page_of(measured).one("section", id="wall-time").one("table"), " measured")["Starts"] == "3"
    assert "no record holds the wall time" in page_of(run).one("section", id="wall-time").text
