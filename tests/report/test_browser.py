"""The page in headless Chromium.

`pip install -e '.[browser]'`, and Debian's chromium or another one on the path.
"""

import datetime
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resnet_jax.analysis import Analysis, Responses
from resnet_jax.report.mistakes import Mistake, Mistakes
from resnet_jax.report.page import write_page
from resnet_jax.report.run_records import read_runs
from resnet_jax.training.stopwatch import PARTS
from tests.report import workdirs

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SIZES = {390: 844, 1280: 900}
GROUND = {"light": "rgb(251, 251, 249)", "dark": "rgb(20, 21, 24)"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on the path"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install -e '.[browser]'"
    )
    with api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page with everything on it.

    A long run and a short one, mistakes, responses, and something left out.
    """
    folder = tmp_path_factory.mktemp("page")
    long = [workdirs.tested(step) if step % 50 == 0 else workdirs.record(step) for step in range(1, 2001)]
    parts = {f"seconds_{part}": 10.0 * place for place, part in enumerate(PARTS)}
    long[-1] |= {"starts": 3, **parts}
    short = [workdirs.tested(step) for step in range(1, 31)]
    paths = [
        workdirs.write(folder / "long <&> run", long),
        workdirs.write(folder / "short", short, seed=3),
        workdirs.write(folder / "new", []),
    ]
    pixels = np.random.RandomState(0).randint(0, 256, (4, 16, 16, 3), np.uint8)
    surest = tuple(Mistake(number, 0, 1, 0.9, pixels[number]) for number in range(4))
    mistakes = Mistakes(
        ("cat", "catapult", "owl"), "test", 20, 7, np.array([[5, 4, 1], [0, 5, 0], [1, 0, 4]]), surest
    )
    layers = {f"stage1/block{number}/conv1": 1 / number for number in range(1, 9)}
    analysis = Analysis(
        "cifar_resnet8",
        7,
        "test",
        20,
        Responses(layers, {f"stage1/block{number}": 0.5 for number in range(1, 5)}),
    )
    now = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    runs = read_runs(list(map(str, paths)))
    path = folder / "page.html"
    path.write_text(
        write_page(
            runs,
            [mistakes, mistakes, "there is no checkpoint"],
            [analysis, "there is none", analysis],
            now=now,
        )
    )
    return path.as_uri()


@pytest.fixture(
    params=[(width, scheme) for width in SIZES for scheme in GROUND],
    ids=lambda value: f"{value[0]} {value[1]}",
)
def opened(request: pytest.FixtureRequest, browser: Any, address: str) -> Iterator[Any]:
    """The page, which must be silent, ask for nothing, and not be wider than the window, whatever a test does
    with it."""
    width, scheme = request.param
    size = {"width": width, "height": SIZES[width]}
    context = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda sent: asked.append(sent.url))
    page.goto(address)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == GROUND[scheme]
    yield page
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [address]
    assert page.evaluate("document.documentElement.scrollWidth") == width
    context.close()


def test_axe_finds_nothing(opened: Any) -> None:
    """With everything unfolded, a cursor shown, on both scales."""
    package = pytest.importorskip(
        "axe_playwright_python", reason="axe is not installed: pip install -e '.[browser]'"
    )
    opened.evaluate((Path(package.__file__).parent / "axe.min.js").read_text())
    opened.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    opened.locator(".cursor").first.focus()
    for scale in ("linear", "log"):
        opened.check(f"#{scale}")
        opened.locator(".cursor").first.focus()
        found = opened.evaluate("axe.run()")
        assert len(found["passes"]) > 20
        assert [
            (one["impact"], one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]
        ] == []


def test_the_keyboard_reaches_every_value(opened: Any) -> None:
    opened.keyboard.press("Tab")
    assert opened.evaluate("document.activeElement.className") == "skip"
    cursor = opened.locator("figure", has_text="Loss").locator(".cursor")
    assert not cursor.locator(".tip").is_visible()
    cursor.focus()
    assert cursor.locator(".tip").is_visible()
    assert cursor.get_attribute("aria-valuenow") == "2000"
    cursor.press("ArrowLeft")
    assert int(cursor.get_attribute("aria-valuenow")) < 2000
    cursor.press("Home")
    assert cursor.get_attribute("aria-valuenow") == "1"
    for _ in range(4):
        cursor.press("ArrowRight")
    step = int(cursor.get_attribute("aria-valuenow"))
    assert f"short, training {2 / step:.4g}; short, test {3 / step:.4g}" in cursor.get_attribute(
        "aria-valuetext"
    )
    cursor.press("Escape")
    assert not cursor.locator(".tip").is_visible()


def test_the_pointer_finds_the_nearest_step(opened: Any) -> None:
    cursor = opened.locator("figure", has_text="Loss").locator(".cursor")
    cursor.scroll_into_view_if_needed()
    box = cursor.bounding_box()
    cursor.hover(position={"x": box["width"] / 2, "y": box["height"] / 2})
    assert abs(int(cursor.get_attribute("aria-valuenow")) - 1000) < 15
    rule = cursor.locator(".rule").bounding_box()
    assert rule["x"] == pytest.approx(box["x"] + box["width"] / 2, abs=5)


def test_the_switch_changes_the_scale(opened: Any) -> None:
    plot = opened.locator("figure", has_text="Loss").locator(".plot")
    for scale, other in (("log", "linear"), ("linear", "log")):
        opened.check(f"#{scale}")
        assert plot.locator(f".{scale}").is_visible()
        assert not plot.locator(f".{other}").is_visible()


def test_results_and_mistakes_are_side_by_side_where_there_is_room(opened: Any) -> None:
    results, mistakes, curves = (
        opened.locator(f"#{name}").bounding_box() for name in ("results", "mistakes", "curves")
    )
    if opened.viewport_size["width"] == 1280:
        assert mistakes["y"] == results["y"] < SIZES[1280] / 2
        assert mistakes["x"] >= results["x"] + results["width"]
        assert mistakes["width"] > 600
    else:
        assert mistakes["x"] == results["x"]
        assert mistakes["y"] >= results["y"] + results["height"]
    assert curves["y"] >= mistakes["y"] + mistakes["height"]


@pytest.mark.parametrize("place", [0.02, 0.45, 0.55, 0.98])
def test_the_values_of_a_step_lie_within_their_chart(opened: Any, place: float) -> None:
    for title in ("Loss", "Images per second"):
        cursor = opened.locator("figure", has_text=title).locator(".cursor")
        cursor.scroll_into_view_if_needed()
        box = cursor.bounding_box()
        cursor.hover(position={"x": place * box["width"], "y": box["height"] / 2})
        tip = cursor.locator(".tip").bounding_box()
        assert box["x"] - 0.5 <= tip["x"]
        assert tip["x"] + tip["width"] <= box["x"] + box["width"] + 0.5
