"""The Python in the README and the docs runs, and links between files lead somewhere."""

import re
from pathlib import Path

import pytest

from resnet_jax.training.run import run
from tests.training import tiny

ROOT = Path(__file__).parents[1]
PAGES = [path for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))] if path.exists()]


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(tiny.get_config(**{"run.steps": 7}), tmp_path / "runs" / "digits_resnet20")
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL))
    assert "load_checkpoint" in code
    exec(compile(code, "README.md", "exec"), {})
