"""Parts of a sweep: the grid's words, the run table's transactions, the check for starving runs, maps and page."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweep_figures import hostile_sweep, numbers, point, truth, within
from trimtab import cli, config, store
from trimtab.config import files
from trimtab.errors import ConfigError
from trimtab.progress import SilentReporter
from trimtab.reporting.render import page_html
from trimtab.runtime.signals import Stop
from trimtab.studies.sweep import run_progress, words
from trimtab.studies.sweep.dispatch import Queue
from trimtab.studies.sweep.grid import Axis, expand, read_axis
from trimtab.studies.sweep.job import Outcome, State
from trimtab.studies.sweep.maps import PointResult, figure_maps
from trimtab.studies.sweep.numbers import AnswerNumbers, MeanMark, PointNumbers
from trimtab.studies.sweep.page import sweep_page
from trimtab.studies.sweep.result import Cost, SweepResult
from trimtab.studies.sweep.run_table import Run, RunTable

# --- the grid --------------------------------------------------------------------------------------------------------


def _recipe(**keys: Any) -> dict[str, Any]:
    return config.merge(files.read_file(config.EMBEDDED_RECIPE), keys)


def test_a_grid_is_every_combination_in_the_order_of_the_words() -> None:
    axes = [read_axis(word) for word in ("margin=0.5,1", "objective.beta=0.1,0.3")]
    assert axes == [Axis("objective.margin", ("0.5", "1")), Axis("objective.beta", ("0.1", "0.3"))]
    sweep = expand(_recipe(out="here", seed=5, seeds=2), axes)
    assert [point.name for point in sweep.points] == [
        "margin=0.5,beta=0.1", "margin=0.5,beta=0.3", "margin=1,beta=0.1", "margin=1,beta=0.3",
    ]  # fmt: skip
    assert sweep.points[2].values == {"objective.margin": 1.0, "objective.beta": 0.1}
    assert sweep.points[2].config.objective.margin == 1.0
    assert sweep.points[2].config.out == "here/points/margin=1,beta=0.1"
    assert sweep.seeds == (5, 6)
    assert len({point.cache_key for point in sweep.points}) == 1
    assert "margin" not in sweep.base["objective"]


def test_points_with_other_data_or_models_share_no_cache() -> None:
    sweep = expand(_recipe(), [Axis("windtunnel.length_bias", ("0", "0.3")), Axis("train.learning_rate", ("1e-4",))])
    assert len({point.cache_key for point in sweep.points}) == 2


def test_names_are_folders_and_differ() -> None:
    axes = [read_axis("model=a/b,a:b,../../etc"), read_axis("engine.packed=on,off")]
    names = [point.name for point in expand(_recipe(), axes).points]
    assert len(set(names)) == 6
    assert all("/" not in name and not name.startswith(".") for name in names)


def test_the_default_folder_is_named_by_what_is_swept() -> None:
    first, second = (expand(_recipe(), [Axis("objective.beta", values)]) for values in (("0.1", "0.2"), ("0.1", "0.3")))
    assert first.out.startswith("runs/sweep-")
    assert first.out != second.out
    assert first.out == expand(_recipe(), [Axis("objective.beta", ("0.1", "0.2"))]).out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["objective.margn=1,2"], "objective.margin"),
        (["objective.beta=0.1,fast"], "objective.beta"),
        (["margin="], "cannot be read"),
        (["margin=1,,2"], "cannot be read"),
        (["margin=1,1.0"], "are the same"),
        (["margin=1,2", "objective.margin=3"], "given twice"),
        (["seed=1,2"], "--seeds K"),
        (["out=a,b"], "no axis"),
        (["objective.temperature=1,2"], "temperature"),
        ([], "needs a grid"),
    ],
)
def test_words_that_are_no_grid_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        expand(_recipe(), [read_axis(word) for word in words])
    assert message in str(error.value)


@pytest.mark.parametrize(
    "words",
    [
        ["--grid"],
        ["--workers", "0"],
        ["--workers", "two"],
        ["--on", "moon"],
        ["--cpus-per-run", "0"],
        ["--gpus-per-run", "2"],
    ],
)
def test_options_without_a_sound_value_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["sweep", "--grid", "margin=1,2", *words])
    assert stopped.value.code == 2
    assert words[0] in capsys.readouterr().err


# --- the run table ---------------------------------------------------------------------------------------------------


def _planned(folder: Path, n: int, *, cache_key: str | None = None) -> list[Run]:
    return [
        Run(f"p{i}/seed-0", f"p{i}", 0, str(folder / f"p{i}"), {"x": i}, {"out": "", "x": i}, cache_key or f"key {i}")
        for i in range(n)
    ]


def _plan(table: RunTable, runs: list[Run], *, retry_failed: bool = False, stop_starved: bool = False) -> None:
    table.plan(runs, retry_failed=retry_failed, stop_starved=stop_starved)


def _next(queue: Queue) -> tuple[str, bool] | None:
    task = queue.next()
    return None if task is None else (task[0].name, task[1])


def test_what_runs_share_is_a_job_before_them(tmp_path: Path) -> None:
    runs = [*_planned(tmp_path, 2, cache_key="same"), replace(_planned(tmp_path, 3)[2], cache_key="alone")]
    queue = Queue(runs)
    assert _next(queue) == ("p0/seed-0", True)
    assert _next(queue) == ("p2/seed-0", False)  # shares with nobody: no job before it
    assert _next(queue) is None  # p1 waits for what p0 makes
    queue.end(runs[0], is_shared=True, in_cache=True, is_next=True)
    assert [_next(queue), _next(queue), _next(queue)] == [("p0/seed-0", False), ("p1/seed-0", False), None]


def test_where_the_shared_job_fails_the_next_run_tries_it(tmp_path: Path) -> None:
    runs = _planned(tmp_path, 3, cache_key="same")
    queue = Queue(runs)
    assert _next(queue) == ("p0/seed-0", True)
    queue.end(runs[0], is_shared=True, in_cache=False, is_next=False)
    assert _next(queue) == ("p1/seed-0", True)
    served = Queue([replace(runs[0], state="done"), *runs[1:]])
    assert [_next(served), _next(served)] == [("p1/seed-0", False), ("p2/seed-0", False)]


def test_a_run_that_a_dead_sweep_had_in_work_is_free(tmp_path: Path) -> None:
    with store.database(tmp_path / "ledger.sqlite") as connection:
        table = RunTable(connection)
        _plan(table, _planned(tmp_path, 2))
        table.start(table.runs()[0])
        assert [run.state for run in table.runs()] == ["running", "waiting"]
        _plan(table, _planned(tmp_path, 2))
        assert [run.state for run in table.runs()] == ["waiting", "waiting"]


def test_a_ledger_of_before_is_read(tmp_path: Path) -> None:
    """Its columns `pid` and `started` go; what runs had come to stays."""
    old = """CREATE TABLE runs (name TEXT PRIMARY KEY, place INTEGER, point TEXT NOT NULL, seed INTEGER NOT NULL,
        folder TEXT NOT NULL, grid TEXT NOT NULL, config TEXT NOT NULL, kin TEXT NOT NULL, state TEXT NOT NULL,
        pid INTEGER, started TEXT, error TEXT, trace TEXT, seconds REAL NOT NULL DEFAULT 0,
        computed TEXT NOT NULL DEFAULT '{}', numbers TEXT) WITHOUT ROWID"""
    with store.database(tmp_path / "ledger.sqlite") as connection:
        connection.execute(old)
        connection.execute("CREATE INDEX runs_by_state ON runs (state, place)")
        connection.execute("PRAGMA user_version = 1")
        connection.execute(
            "INSERT INTO runs VALUES ('a', 0, 'a', 0, 'f', '{}', '{}', 'k', 'failed', 7, '8', 'why', NULL, 2.5, '{}',"
            " NULL)"
        )
        (run,) = RunTable(connection).runs()
        assert (run.state, run.error, run.seconds, run.host) == ("failed", "why", 2.5, None)
        assert RunTable(connection).runs() == [run]


def test_states_over_the_calls_of_a_sweep(tmp_path: Path) -> None:
    runs = _planned(tmp_path, 4)
    outcomes: tuple[State, ...] = ("done", "failed", "stopped", "starved")
    with store.database(tmp_path / "ledger.sqlite") as connection:
        table = RunTable(connection)
        _plan(table, runs)
        for state in outcomes:
            run = next(run for run in table.runs() if run.state == "waiting")
            table.start(run)
            table.finish(run, Outcome(state, 1.0, {"training": 1.0}, error="lone \ud800 surrogate"))
        (tmp_path / "p0").mkdir()
        (tmp_path / "p0" / "report.json").write_text("{}")

        def states(runs: list[Run], *, retry_failed: bool = False, stop_starved: bool = False) -> list[str]:
            _plan(table, runs, retry_failed=retry_failed, stop_starved=stop_starved)
            return [run.state for run in table.runs()]

        assert states(runs, stop_starved=True) == ["done", "failed", "waiting", "starved"]
        assert "surrogate" in (table.runs()[1].error or "")
        assert states(runs) == ["done", "failed", "waiting", "waiting"]
        assert states(runs, retry_failed=True) == ["done", "waiting", "waiting", "waiting"]
        assert states(runs[1:]) == ["waiting"] * 3  # a smaller grid looks at its own runs only
        again = table.runs()[0]
        table.finish(again, Outcome("done", 2.0, {"training": 0.5, "reference": 1.0}))
        run = next(run for run in table.runs() if run.name == again.name)
        assert (run.seconds, run.task_seconds) == (3.0, {"training": 1.5, "reference": 1.0})
        assert states(runs)[:2] == ["done", "waiting"]  # finished, but its report is not there
        assert states([replace(runs[0], config={"out": "", "x": 9})]) == ["waiting"]


# --- starving runs ---------------------------------------------------------------------------------------------------


def _steps_until_starved(actives: Sequence[float], *, total: int, done: int = 0) -> int | None:
    progress = run_progress.RunProgress(SilentReporter(), name="x", stop=Stop(), stop_starved=True)
    with progress.track("training", total=total, unit="steps", n_done=done) as advance:
        for step, active in enumerate(actives, start=done + 1):
            try:
                advance(1, loss=1.0, active=active)
            except run_progress.StarvedRun:
                return step
    return None


def test_a_run_starves_over_a_tenth_of_the_run_and_before_its_middle() -> None:
    """Forty steps, a window of four: one quiet batch is not starving, four of them are; after step 20 none counts."""
    assert _steps_until_starved([1, 1, 1, 0, 1, 1, 1], total=40) is None
    assert _steps_until_starved([1, 1, 0, 0, 0, 0, 1], total=40) == 6
    assert _steps_until_starved([1] * 17 + [0] * 20, total=40) is None
    assert _steps_until_starved([1] * 16 + [0] * 20, total=40) == 20
    assert _steps_until_starved([0.05] * 20, total=40) is None  # not below 5 %
    assert _steps_until_starved([0, 0, 0, 0], total=40, done=10) == 14  # a resumed run needs a whole window


def test_tasks_are_counted_as_work_and_a_signal_counts_between_them() -> None:
    stop = Stop()
    progress = run_progress.RunProgress(SilentReporter(), name="x", stop=stop, stop_starved=False)
    with progress.track("reference", total=1, unit="rows") as advance:
        advance(1)
    progress.say("from the cache")
    assert list(progress.computed) == ["reference"]
    stop.signal = signal.SIGTERM
    with pytest.raises(Exception, match="between two of its stages"):
        progress.say("next")


# --- numbers ---------------------------------------------------------------------------------------------------------


def _shrunk_report(*strengths: float, difficulty: bool = False) -> dict[str, Any]:
    """A report with a length-controlled rate of 50, by seeds with these strengths."""
    rate = {"value": 50.0, "ci95": [40.0, 60.0], "n": 80, "n_missing": 0, "n_seeds": len(strengths), "method": "m"}
    weights = [{"length": 0.1, "own": own} | ({"difficulty": 0.2} if difficulty else {}) for own in strengths]
    controlled = {"win_rate": rate, "by_seed": [{"lc_weights": seed} for seed in weights]}
    judge = {"judge": "gpt", "label": "GPT", "role": "judge", "win_rate": rate, "length_controlled": controlled}
    benchmark = {"judges": [judge], "marks": None, "scores": None, "lengths": None}
    return {"benchmark": benchmark, "training": None, "heldout": None}


def test_a_rate_that_the_penalty_shrank_to_50_is_counted_and_said() -> None:
    """Without difficulties a strength of 0 predicts 50 whatever was judged; with them it does not."""
    read = {
        name: AnswerNumbers.from_report(_shrunk_report(*strengths, difficulty=name == "official"))
        for name, strengths in {"both": (0.0, 0.0), "first": (0.0, 0.4), "none": (0.3, 0.2), "official": (0.0,)}.items()
    }
    assert {name: answers.win_rates[1].n_shrunk for name, answers in read.items()} == {
        "both": 2, "first": 1, "none": 0, "official": 0
    }  # fmt: skip
    assert AnswerNumbers.from_json(read["both"].to_json()) == read["both"]
    assert "n_shrunk" not in str(read["none"].to_json())
    training = numbers().training
    points = [point(name, PointNumbers(answers, training), x=name) for name, answers in read.items()]
    (sentence,) = [line for line in words.sentences(_result(*points)) if "L1 penalty" in line]
    assert (
        "by GPT: the L1 penalty shrank it to exactly 50 at both (2 of 2 seeds), first (1 of 2 seeds), because"
        in sentence
    )
    html = page_html(sweep_page(_result(*points)))
    assert html.count("<em>shrunk") == 2
    assert "L1 penalty" not in page_html(sweep_page(_result(*points[2:])))


def _result(*points: PointResult, base: dict[str, Any] | None = None) -> SweepResult:
    tree = base or {"model": {"name": "m"}, "data": {"source": "d"}}
    return SweepResult("here", "trimtab sweep", ("x",), (0,), tree, points, Cost(1.0, {}, 1.0))


def test_numbers_that_older_sweeps_wrote_are_read() -> None:
    """Before there were marks and true scores, a run's numbers did not name them."""
    tree = numbers(rates=[truth(60.0)], length=within(20.0, 1.0, unit="tokens")).to_json()
    for key in ("mark", "true_score"):
        del tree[key]
    assert PointNumbers.from_json(tree).answers.length == within(20.0, 1.0, unit="tokens")


# --- the maps --------------------------------------------------------------------------------------------------------


def test_maps_of_one_key_and_of_three() -> None:
    points = [point("a", numbers(regimes=["linear"]), b=1), point("c", numbers(regimes=["starved", "selective"]), b=2)]
    line = [figures.to_json() for figures in figure_maps(points, ["b"])]
    assert [figures["title"] for figures in line][::3] == [
        "Active pairs at the end",
        "Steps to 90 % of the final reward accuracy",
    ]
    assert (line[0]["rows"]["values"], line[0]["columns"]) == ([1, 2], {"key": None, "values": [None]})
    assert [row[0]["figure"]["value"] for row in line[0]["cells"]] == [25.0, 25.0]
    assert [(row[0]["linear"], row[0]["starved"], row[0]["n_seeds"]) for row in line[0]["cells"]] == [
        (1, 0, 1),
        (0, 1, 2),
    ]

    points = [point(f"{b}{m}{t}", numbers(), b=b, m=m, t=t) for b in (1, 2) for m in "xyz" for t in (None, 0.5)]
    several = figure_maps(points, ["b", "m", "t"])
    assert [figures.facet for figures in several[:2]] == [{"t": None}, {"t": 0.5}]
    assert [[cell.name for cell in row] for row in several[1].cells] == [
        ["1x0.5", "1y0.5", "1z0.5"], ["2x0.5", "2y0.5", "2z0.5"],
    ]  # fmt: skip


def test_marks_are_mapped_where_there_are_marks() -> None:
    points = [
        point(name, numbers(mark=MeanMark("gpt", within(mark, 0.5, n=80, unit="of 10")), active=1.0), point=name)
        for name, mark in (("a", 5.25), ("b", 6.5))
    ]
    result = replace(_result(*points), keys=("point",))
    first = figure_maps(points, ["point"])[0]
    assert (first.measure.title, first.measure.unit) == ("Mean mark (gpt)", "of 10")
    html = page_html(sweep_page(result))
    assert '<figure class="map named"><figcaption>Mean mark (gpt)' in html
    assert "<b>5.25</b><small>4.75 to 5.75</small>" in html
    assert words.sentences(result)[0].startswith("Highest mean mark: 6.50 [6.00,\u00a07.00] of 10 at b")


# --- the page --------------------------------------------------------------------------------------------------------


def test_hostile_text_does_nothing_on_the_page() -> None:
    evil = "<script>alert(1)</script>\u202e"
    result = hostile_sweep(evil, evil)
    html = page_html(sweep_page(result))
    assert "<script" not in html
    assert "\u202e" not in html
    assert "&lt;script&gt;" in html
    assert words.lines(result)
