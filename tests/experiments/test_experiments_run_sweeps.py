"""What `make findings` runs: real sweeps, small; and that nothing is run twice."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from experiments.questions import QUESTIONS, calibration, saturation
from experiments.revision import ROOT, revision
from experiments.run_sweeps import Options, SweepSpec

from experiments import __main__ as command
from experiments import page, run_sweeps
from trimtab import store

TINY = ("--data.limit", "24", "--benchmark.limit", "8")


def test_every_question_needs_sweeps_that_are_made() -> None:
    names = {spec.name for spec in run_sweeps.SWEEPS}
    for question in QUESTIONS:
        assert {*question.needs, *question.optional} <= names
    assert {*saturation.POINTS, *calibration.POINTS} <= names


def test_the_recipes_of_its_own_name_their_command() -> None:
    for spec in run_sweeps.SWEEPS:
        if spec.folder == run_sweeps.OWN:
            assert f"trimtab sweep {spec.recipe} " in (ROOT / spec.recipe).read_text(encoding="utf-8")


@pytest.mark.parametrize("spec", run_sweeps.SWEEPS, ids=lambda spec: spec.name)
def test_the_quick_form_varies_what_the_recipe_varies(spec: SweepSpec) -> None:
    """A flag beside an axis of the same key is refused by the sweep; an axis that is new would be another question."""
    tree = tomllib.loads((ROOT / spec.recipe).read_text(encoding="utf-8"))
    axes = _keys(tree["sweep"].get("grid", {}))
    words = list(zip(spec.quick[::2], spec.quick[1::2], strict=True))
    grid_keys = {value.partition("=")[0] for flag, value in words if flag == "--grid"}
    assert grid_keys <= axes
    assert not {flag[2:] for flag, _ in words} & axes


def _keys(grid: dict[str, Any], before: str = "") -> set[str]:
    keys: set[str] = set()
    for key, value in grid.items():
        name = f"{before}{key}".replace("-", "_")
        keys |= _keys(value, f"{name}.") if isinstance(value, dict) else {name}
    return keys


@pytest.mark.slow
def test_a_slice_of_the_quick_form(tmp_path: Path) -> None:
    """One real sweep, then the page of it, then once more: nothing is left to do."""
    lines: list[str] = []
    options = Options(runs=tmp_path, quick=True, workers=1, only=("less-training",), words=TINY, say=lines.append)
    run_sweeps.make(options)
    tree = store.read_json(tmp_path / "less-training" / "sweep.json")
    assert tree["states"] == {"done": 4}
    assert "less-training" in page.sweeps_in(tmp_path)
    assert run_sweeps.revision_of(tmp_path / "less-training") == revision()
    run_sweeps.make(options)
    assert lines[-1] == "less-training: whole already"


def test_a_recipe_that_changed_is_run_again(tmp_path: Path) -> None:
    spec = SweepSpec("less-training", run_sweeps.OWN)
    store.write_json(tmp_path / "sweep.json", {"states": {"done": 4}})
    assert run_sweeps.is_whole(tmp_path, spec, ())  # it does not say by what it was made
    record = {"revisions": ["abc"], "recipe_sha256": "another", "words": []}
    store.write_json(tmp_path / run_sweeps.RECORD, record)
    assert not run_sweeps.is_whole(tmp_path, spec, ())
    store.write_json(tmp_path / "sweep.json", {"states": {"done": 3, "failed": 1}})
    assert not run_sweeps.is_whole(tmp_path, spec, ())


def test_real_pairs_that_are_not_there_are_named(tmp_path: Path) -> None:
    options = Options(runs=tmp_path, quick=True, real_data=tmp_path / "nowhere", only=("real-ukp",))
    with pytest.raises(run_sweeps.CannotRun, match=r"real-ukp: there is no .*cardputer-chat-3M"):
        run_sweeps.make(options)


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
