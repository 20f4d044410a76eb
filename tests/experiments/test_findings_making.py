"""What `make findings` runs: real sweeps, small; and that nothing is run twice."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from experiments.making import Made, Order
from experiments.questions import QUESTIONS, calibration, saturation

from experiments import __main__ as command
from experiments import making, page
from trimtab import store

TINY = ("--data.limit", "24", "--benchmark.limit", "8")


def test_every_question_needs_sweeps_that_are_made() -> None:
    made = {one.name for one in making.SWEEPS}
    for question in QUESTIONS:
        assert {*question.needs, *question.wants} <= made
    assert {*saturation.PROBED, *calibration.CALIBRATED} <= made


def test_the_recipes_of_its_own_name_their_command() -> None:
    for made in making.SWEEPS:
        if made.folder == making.OWN:
            assert f"trimtab sweep {made.recipe} " in (making.ROOT / made.recipe).read_text(encoding="utf-8")


@pytest.mark.parametrize("made", making.SWEEPS, ids=lambda made: made.name)
def test_the_quick_form_varies_what_the_recipe_varies(made: Made) -> None:
    """A flag beside an axis of the same key is refused by the sweep; an axis that is new would be another question."""
    tree = tomllib.loads((making.ROOT / made.recipe).read_text(encoding="utf-8"))
    axes = _keys(tree["sweep"].get("grid", {}))
    words = list(zip(made.quick[::2], made.quick[1::2], strict=True))
    replaced = {value.partition("=")[0] for flag, value in words if flag == "--grid"}
    assert replaced <= axes
    assert not {flag[2:] for flag, _ in words} & axes


def _keys(grid: dict[str, Any], before: str = "") -> set[str]:
    found: set[str] = set()
    for key, value in grid.items():
        name = f"{before}{key}".replace("-", "_")
        found |= _keys(value, f"{name}.") if isinstance(value, dict) else {name}
    return found


def test_a_slice_of_the_quick_form(tmp_path: Path) -> None:
    """One real sweep, then the page of it, then once more: nothing is left to do."""
    said: list[str] = []
    order = Order(runs=tmp_path, quick=True, workers=1, only=("less-training",), words=TINY, say=said.append)
    making.make(order)
    told = store.read_json(tmp_path / "less-training" / "sweep.json")
    assert told["states"] == {"done": 4}
    assert "less-training" in page.sweeps_in(tmp_path)
    assert making.revision_of(tmp_path / "less-training") == making.revision()
    making.make(order)
    assert said[-1] == "less-training: whole already"


def test_a_recipe_that_changed_is_run_again(tmp_path: Path) -> None:
    made = Made("less-training", making.OWN)
    store.write_json(tmp_path / "sweep.json", {"states": {"done": 4}})
    assert making.is_whole(tmp_path, made, ())  # it does not say by what it was made
    kept = {"revisions": ["abc"], "recipe_sha256": "another", "words": []}
    store.write_json(tmp_path / making.MADE, kept)
    assert not making.is_whole(tmp_path, made, ())
    store.write_json(tmp_path / "sweep.json", {"states": {"done": 3, "failed": 1}})
    assert not making.is_whole(tmp_path, made, ())


def test_real_pairs_that_are_not_there_are_named(tmp_path: Path) -> None:
    order = Order(runs=tmp_path, quick=True, shared=tmp_path / "nowhere", only=("real-ukp",))
    with pytest.raises(making.Refused, match=r"real-ukp: there is no .*cardputer-chat-3M"):
        making.make(order)


@pytest.mark.slow
@pytest.mark.needs_shared
def test_the_whole_quick_form(tmp_path: Path, shared_data: Path) -> None:
    """Every sweep, probe and calibration, small; every question is answered with a figure."""
    runs = tmp_path / "runs"
    assert command.main(["--quick", "--runs", str(runs), "--out", str(tmp_path), "--shared", str(shared_data)]) == 0
    text = (tmp_path / "findings.md").read_text(encoding="utf-8")
    assert "Not run yet" not in text
    assert "Not answered" not in text
    assert text.count("](figures/") == len(QUESTIONS)
    assert command.main(["--quick", "--runs", str(runs), "--out", str(tmp_path / "again"), "--page"]) == 0
    assert store.read_json(tmp_path / "again" / "numbers.json") == store.read_json(tmp_path / "numbers.json")
