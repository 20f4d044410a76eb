"""`--trials N`: proposals from what earlier points came to, the same after a stop; an early end for what is outdone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweep_figures import numbers, truth
from trial_runs import call, tree_of
from trimtab import config, store
from trimtab.config import files
from trimtab.errors import ConfigError
from trimtab.progress import SilentReporter
from trimtab.runtime.signals import Stop
from trimtab.studies.sweep import command
from trimtab.studies.sweep.grid import Axis, read_axis
from trimtab.studies.sweep.job import Outcome
from trimtab.studies.sweep.run_progress import MilestoneLimits, PrunedRun, RunProgress
from trimtab.studies.sweep.run_table import FILE_NAME, Run, RunTable
from trimtab.studies.sweep.search import Search, Trial
from trimtab.studies.sweep.search_source import LEAST_RUNS, SearchSource

pytest.importorskip("optuna")

SMALL = (
    *("--windtunnel.pairs", "16"), *("--windtunnel.prompts", "8"), *("--train.max-steps", "2"),
    *("--train.batch-pairs", "8"),
)  # fmt: skip


def searched(search: Search, value: Callable[[float], float], n: int, trials: list[Trial] | None = None) -> list[Trial]:
    """The search over `x` for so many trials, each with its value at once."""
    trials = list(trials or [])
    for _ in range(n):
        texts = search.propose(trials)
        assert texts is not None
        trials.append(Trial(texts, "done", value(float(texts["x"]))))
    return trials


def test_proposals_gather_where_the_value_is_high() -> None:
    """−(x − 0.8)² is highest at 0.8: after ten at random the others lie nearer to it, and one very near."""
    search = Search((Axis("x", ("0.01..1",)),), 40, seed=0)
    trials = searched(search, lambda x: -((x - 0.8) ** 2), 40)
    distances = [abs(float(trial.texts["x"]) - 0.8) for trial in trials]
    assert sum(distances[20:]) / 20 < 0.6 * sum(distances[:10]) / 10
    assert min(distances) < 0.03
    assert search.propose(trials) is None
    assert all(0.01 <= float(trial.texts["x"]) <= 1 and len(trial.texts["x"]) <= 6 for trial in trials)


def test_a_search_that_was_stopped_goes_on_as_it_would_have() -> None:
    """Known of stored studies: after a restart the same seed proposes the same points again."""
    whole = searched(Search((Axis("x", ("0..1",)),), 14, seed=3), lambda x: x, 14)
    first = searched(Search((Axis("x", ("0..1",)),), 5, seed=3), lambda x: x, 5)
    assert whole[:5] == first
    assert searched(Search((Axis("x", ("0..1",)),), 14, seed=3), lambda x: x, 9, first) == whole
    assert len({trial.texts["x"] for trial in whole}) == 14
    assert searched(Search((Axis("x", ("0..1",)),), 14, seed=4), lambda x: x, 1) != whole[:1]


def test_a_trial_in_work_is_not_proposed_again_and_a_failed_one_teaches_nothing() -> None:
    search = Search((Axis("x", ("1", "2", "3")),), 99, seed=0)
    running: list[Trial] = []
    while texts := search.propose(running):
        running.append(Trial(texts, "running"))
    assert sorted(trial.texts["x"] for trial in running) == ["1", "2", "3"]  # and then nothing new is left
    two = (Axis("x", ("0..1",)),)
    failed = [Trial({"x": str(i / 20)}, "failed") for i in range(12)]
    untaught = Search(two, 99, seed=1).propose(failed)
    assert untaught == Search(two, 99, seed=1).propose([Trial({"x": "0.5"}, "failed")] * 12)


def test_ranges_are_whole_logarithmic_or_neither() -> None:
    search = Search(
        (Axis("n", ("1..4",)), Axis("rate", ("1e-5..1e-3",)), Axis("share", ("0..1",))), 60, 0, frozenset("n")
    )
    trials: list[Trial] = []
    for _ in range(60):
        texts = search.propose(trials)
        assert texts is not None
        trials.append(Trial(texts, "failed"))  # so that all are drawn at random
    assert {trial.texts["n"] for trial in trials} == {"1", "2", "3", "4"}
    rates = [float(trial.texts["rate"]) for trial in trials]
    assert 20 <= sum(rate < 1e-4 for rate in rates) <= 40  # half of them below the middle of the logarithm
    assert len({trial.texts["share"] for trial in trials}) > 50  # whole ends, and a key that takes fractions


def test_ranges_of_keys_with_whole_numbers_are_whole() -> None:
    tree, axes = (
        files.read_file(config.EMBEDDED_RECIPE),
        [read_axis("windtunnel.pairs=16..64"), read_axis("margin=1..2")],
    )
    assert command.expand_search(tree, {}, axes=axes, n_trials=3).search.whole == {"windtunnel.pairs"}


def _expand(tree: dict[str, Any], axes: list[Axis], trials: int | None) -> object:
    if trials is None:
        return command.expand(tree, {}, axes=axes)
    return command.expand_search(tree, {}, axes=axes, n_trials=trials)


@pytest.mark.parametrize(
    ("axes", "trials", "message"),
    [
        (["objective.beta=2..1"], 3, "objective.beta=2..1 is no range"),
        (["objective.beta=0.1..fast"], 3, "objective.beta"),
        (["margin=1..2"], 0, "--trials 0"),
        ([], 3, "needs a grid"),
        (["margin=1..2"], None, "--trials N"),
    ],
)
def test_words_that_are_no_search_are_refused(axes: list[str], trials: int | None, message: str) -> None:
    tree, grid_axes = files.read_file(config.EMBEDDED_RECIPE), [read_axis(axis) for axis in axes]
    with pytest.raises(ConfigError) as error:
        _expand(tree, grid_axes, trials)
    assert message in str(error.value)


def test_a_trial_is_the_mean_over_its_seeds() -> None:
    def run(state: Any, rate: float | None) -> Run:
        figures = None if rate is None else numbers(rates=[truth(rate)])
        return Run("a", "a", 0, "f", {}, {}, "k", state=state, numbers=figures)

    texts = {"x": "1"}
    assert Trial.of(texts, [run("done", 50.0), run("done", 61.0)]) == Trial(texts, "done", 55.5)
    assert Trial.of(texts, [run("done", 50.0), run("running", None)]).state == "running"
    assert Trial.of(texts, [run("done", 50.0), run("failed", None)]).state == "failed"
    assert Trial.of(texts, [run("done", 50.0), run("starved", None)]).state == "pruned"
    assert Trial.of(texts, [run("done", 50.0), run("pruned", None)]).state == "pruned"


# --- pruning ---------------------------------------------------------------------------------------------------------


def _milestone(folder: Path, step: int, n_right: int, n: int) -> None:
    gaps = [1.0] * n_right + [-1.0] * (n - n_right)
    evidence = {"rewards": {"reward_gaps": gaps}}
    store.write_json(folder / "milestones" / f"step-{step:08d}" / "evidence.json", evidence)


def test_a_run_ends_where_it_is_distinguishably_below_and_not_before(tmp_path: Path) -> None:
    """40 of 100 right: Wilson's interval ends at (0.4 + 0.01921 + 1.96 · √(0.0024 + 0.0000960)) / 1.0384 = 0.498."""
    limits = MilestoneLimits(tmp_path, {"2": 0.49, "4": 0.51})
    progress = RunProgress(SilentReporter(), name="a", stop=Stop(), stop_starved=False, limits=limits)
    with progress.track("training", total=9, unit="steps") as advance:
        advance(1)
        _milestone(tmp_path, 2, 40, 100)
        advance(1)  # 0.498 reaches 0.49: it may be as good
        advance(1)
        _milestone(tmp_path, 4, 40, 100)
        with pytest.raises(PrunedRun, match=r"after step 4: held-out accuracy 0\.400 \(at most 0\.498, of 100 pairs\)"):
            advance(1)


def test_limits_are_the_medians_of_the_runs_that_have_been_there(tmp_path: Path) -> None:
    tree = config.merge(files.read_file(config.EMBEDDED_RECIPE), {"out": str(tmp_path)})
    plan = command.expand_search(tree, {}, axes=[read_axis("objective.beta=0.1..3")], n_trials=9)
    with store.database(tmp_path / FILE_NAME) as connection:
        source = SearchSource(plan.search, plan.sweep, plan.tree, RunTable(connection))
        for place, accuracy in enumerate((0.5, 0.9, 0.6, 0.8, 0.7)):
            assert source.limits() == {}, f"fewer than {LEAST_RUNS} runs were there"
            (run,) = source.next_runs()
            row = {"step": 3, "accuracy": {"value": accuracy}}
            store.write_json(
                Path(run.folder) / "selection.json",
                {"milestones": [row, {"step": 6, "accuracy": {"value": accuracy}}]},  # the end of the run: too late
            )
            source.table.finish(run, Outcome("done", 1.0, {}, numbers(rates=[truth(50.0 + place)])))
        assert source.limits() == {"3": 0.7}
        again = SearchSource(plan.search, plan.sweep, plan.tree, RunTable(connection))
        again.restore()
        assert [point.name for point in again.sweep.points] == [point.name for point in source.sweep.points]
        assert [run.name for run in again.next_runs()] != []
        assert again.sweep.points[5].settings != source.sweep.points[4].settings


def test_a_search_for_nothing_ends_with_a_remedy(tmp_path: Path) -> None:
    """Two trials without a judge and without held-out pairs would all be alike."""
    tree = config.merge(files.read_file(config.EMBEDDED_RECIPE), {"out": str(tmp_path)})
    plan = command.expand_search(tree, {}, axes=[read_axis("objective.beta=0.1..3")], n_trials=9)
    with store.database(tmp_path / FILE_NAME) as connection:
        source = SearchSource(plan.search, plan.sweep, plan.tree, RunTable(connection))
        (run,) = source.next_runs()
        source.table.finish(run, Outcome("done", 1.0, {}, numbers()))
        with pytest.raises(ConfigError, match=r"nothing to search for\n  → add a benchmark with a judge"):
            source.next_runs()


# --- the command -----------------------------------------------------------------------------------------------------


def test_a_search_by_the_command_line_and_more_trials_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path / "home"))
    words = ["sweep", *SMALL, "--grid", "beta=0.1..3", "--grid", "margin=0.5,1", "--out", tmp_path / "s", "--quiet"]
    code, out, err = call([*words, "--trials", "2"], capsys)
    assert code == 0, err
    assert "2 of 2 trials were tried, proposed by TPE over objective.beta (0.1..3), objective.margin (0.5, 1)" in out
    first = tree_of(tmp_path / "s" / "sweep.json")
    assert (first["states"], len(first["points"]), first["maps"]) == ({"done": 2}, 2, [])
    assert first["search"]["trials"] == 2
    for point in first["points"]:
        folder = Path(point["runs"][0]["folder"])
        section = json.loads((folder / "config.json").read_text())["objective"]
        assert (section["beta"], section["margin"]) == tuple(point["values"].values())
        assert 0.1 <= section["beta"] <= 3
    shared = [point["runs"][0]["computed"].get("reference") is not None for point in first["points"]]
    assert shared == [True, False]  # the shared work is a job before the first trial
    code, out, err = call([*words, "--trials", "3"], capsys)
    assert code == 0, err
    assert "2 of them done already" in err
    second = tree_of(tmp_path / "s" / "sweep.json")
    assert [point["name"] for point in second["points"]][:2] == [point["name"] for point in first["points"]]
    assert (second["states"], len({point["name"] for point in second["points"]})) == ({"done": 3}, 3)
    html = (tmp_path / "s" / "sweep.html").read_text(encoding="utf-8")
    assert "3 of 3 trials were tried" in html
