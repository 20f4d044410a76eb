"""Parts of a sweep: the grid's words, the ledger's transactions, the look-out for starving runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trimtab import cli, config, store
from trimtab.config import files
from trimtab.errors import ConfigError
from trimtab.progress import SilentReporter
from trimtab.runtime.signals import Stop
from trimtab.studies.sweep import page
from trimtab.studies.sweep import run_progress as watching
from trimtab.studies.sweep.grid import Axis, expand, read_axis
from trimtab.studies.sweep.ledger import Ledger, Wanted, is_alive, process_start
from trimtab.studies.sweep.maps import maps

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
    assert len({point.kin for point in sweep.points}) == 1
    assert "margin" not in sweep.base["objective"]


def test_points_with_other_data_or_models_are_not_kin() -> None:
    sweep = expand(_recipe(), [Axis("windtunnel.length_bias", ("0", "0.3")), Axis("train.learning_rate", ("1e-4",))])
    assert len({point.kin for point in sweep.points}) == 2


def test_names_are_folders_and_differ() -> None:
    axes = [read_axis("model=a/b,a:b,../../etc"), read_axis("engine.packed=on,off")]
    names = [point.name for point in expand(_recipe(), axes).points]
    assert len(set(names)) == 6
    assert all("/" not in name and not name.startswith(".") for name in names)


def test_the_default_folder_is_named_by_what_is_swept() -> None:
    one, two = (expand(_recipe(), [Axis("objective.beta", values)]) for values in (("0.1", "0.2"), ("0.1", "0.3")))
    assert one.out.startswith("runs/sweep-")
    assert one.out != two.out
    assert one.out == expand(_recipe(), [Axis("objective.beta", ("0.1", "0.2"))]).out


@pytest.mark.parametrize(
    ("words", "told"),
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
def test_words_that_are_no_grid_are_refused(words: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        expand(_recipe(), [read_axis(word) for word in words])
    assert told in str(caught.value)


@pytest.mark.parametrize("words", [["--grid"], ["--workers", "0"], ["--workers", "two"], ["--storage", "nowhere"]])
def test_options_without_a_sound_value_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["sweep", "--grid", "margin=1,2", *words])
    assert stopped.value.code == 2
    assert words[0] in capsys.readouterr().err


# --- the ledger ------------------------------------------------------------------------------------------------------


def _wanted(folder: Path, n: int, *, kin: str | None = None) -> list[Wanted]:
    return [
        Wanted(f"p{i}/seed-0", f"p{i}", 0, str(folder / f"p{i}"), {"x": i}, {"out": "", "x": i}, kin or f"kin {i}")
        for i in range(n)
    ]


def _plan(ledger: Ledger, runs: list[Wanted], *, retry_failed: bool = False, stop_starved: bool = False) -> None:
    ledger.plan(runs, retry_failed=retry_failed, stop_starved=stop_starved)


_TAKER = """
import sys
from pathlib import Path
from trimtab import store
from trimtab.studies.sweep.ledger import Ledger
with store.database(Path(sys.argv[1])) as connection:
    ledger = Ledger(connection)
    while (row := ledger.take()) is not None:
        print(row.name, flush=True)
        ledger.finish(row, "done", seconds=1.0, computed={})
"""


def test_two_workers_never_take_one_row(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with store.database(path) as connection:
        _plan(Ledger(connection), _wanted(tmp_path, 40))
    workers = [
        subprocess.Popen([sys.executable, "-c", _TAKER, str(path)], stdout=subprocess.PIPE, text=True) for _ in "ab"
    ]
    taken = [worker.communicate(timeout=60)[0].split("\n")[:-1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    assert sorted(taken[0] + taken[1]) == sorted(f"p{i}/seed-0" for i in range(40))
    with store.database(path) as connection:
        assert {(row.state, row.seconds) for row in Ledger(connection).rows()} == {("done", 1.0)}


def test_a_dead_worker_frees_its_row(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    dying = _TAKER.replace("ledger.finish(row", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)  # ")
    with store.database(path) as connection:
        ledger = Ledger(connection)
        _plan(ledger, _wanted(tmp_path, 1))
        killed = subprocess.run([sys.executable, "-c", dying, str(path)], capture_output=True, text=True, check=False)
        assert (killed.returncode, killed.stdout) == (-signal.SIGKILL, "p0/seed-0\n")
        assert [row.state for row in ledger.rows()] == ["running"]
        assert not ledger.is_over()
        mine = ledger.take()
        assert mine is not None
        assert mine.name == "p0/seed-0"
        assert ledger.take() is None  # this process lives
        assert ledger.rows()[0].pid == os.getpid()


@pytest.mark.skipif(process_start(os.getpid()) is None, reason="this system does not say when a process started")
def test_a_reused_process_number_is_another_process() -> None:
    assert is_alive(os.getpid(), process_start(os.getpid()))
    assert not is_alive(os.getpid(), "1")


def test_the_first_of_a_kin_goes_ahead_alone(tmp_path: Path) -> None:
    with store.database(tmp_path / "ledger.sqlite") as connection:
        ledger = Ledger(connection)
        _plan(ledger, _wanted(tmp_path, 3, kin="same"))
        first = ledger.take()
        assert first is not None
        assert ledger.take() is None
        assert not ledger.is_over()
        ledger.finish(first, "done", seconds=2.0, computed={"reference": 1.5}, numbers={"a": 1})
        assert [row.name for row in (ledger.take(), ledger.take()) if row] == ["p1/seed-0", "p2/seed-0"]


def test_states_over_the_lives_of_a_sweep(tmp_path: Path) -> None:
    runs = _wanted(tmp_path, 4)
    with store.database(tmp_path / "ledger.sqlite") as connection:
        ledger = Ledger(connection)
        _plan(ledger, runs)
        for state in ("done", "failed", "stopped", "starved"):
            row = ledger.take()
            assert row is not None
            ledger.finish(row, state, seconds=1.0, computed={"training": 1.0}, error="lone \ud800 surrogate")
        (tmp_path / "p0").mkdir()
        (tmp_path / "p0" / "report.json").write_text("{}")

        def states(runs: list[Wanted], **told: bool) -> list[str]:
            _plan(ledger, runs, **told)
            return [row.state for row in ledger.rows()]

        assert states(runs, stop_starved=True) == ["done", "failed", "waiting", "starved"]
        assert "surrogate" in (ledger.rows()[1].error or "")
        assert states(runs) == ["done", "failed", "waiting", "waiting"]
        assert states(runs, retry_failed=True) == ["done", "waiting", "waiting", "waiting"]
        assert states(runs[1:]) == ["waiting"] * 3  # a smaller grid looks at its own runs only
        again = ledger.take()
        assert again is not None
        ledger.finish(again, "done", seconds=2.0, computed={"training": 0.5, "reference": 1.0})
        row = next(row for row in ledger.rows() if row.name == again.name)
        assert (row.seconds, row.computed) == (3.0, {"training": 1.5, "reference": 1.0})
        assert states(runs)[:2] == ["done", "waiting"]  # finished, but its report is not there
        changed = [Wanted(**{f: getattr(runs[0], f) for f in Wanted.__slots__} | {"config": {"out": "", "x": 9}})]
        assert states(changed) == ["waiting"]


# --- looking on ------------------------------------------------------------------------------------------------------


def _steps_until_starved(actives: list[float], *, total: int, done: int = 0) -> int | None:
    look = watching.Watching(SilentReporter(), name="x", stop=Stop(), stop_starved=True)
    with look.track("training", total=total, unit="steps", done=done) as advance:
        for step, active in enumerate(actives, start=done + 1):
            try:
                advance(1, loss=1.0, active=active)
            except watching.Starved:
                return step
    return None


def test_starving_is_seen_over_a_tenth_of_the_run_and_before_its_middle() -> None:
    """Forty steps, a window of four: one quiet batch is not starving, four of them are; after step 20 none counts."""
    assert _steps_until_starved([1, 1, 1, 0, 1, 1, 1], total=40) is None
    assert _steps_until_starved([1, 1, 0, 0, 0, 0, 1], total=40) == 6
    assert _steps_until_starved([1] * 17 + [0] * 20, total=40) is None
    assert _steps_until_starved([1] * 16 + [0] * 20, total=40) == 20
    assert _steps_until_starved([0.05] * 20, total=40) is None  # not below 5 %
    assert _steps_until_starved([0, 0, 0, 0], total=40, done=10) == 14  # a resumed run needs a whole window


def test_tasks_are_counted_as_work_and_a_signal_is_seen_between_them() -> None:
    stop = Stop()
    look = watching.Watching(SilentReporter(), name="x", stop=stop, stop_starved=False)
    with look.track("reference", total=1, unit="rows") as advance:
        advance(1)
    look.say("from the cache")
    assert list(look.computed) == ["reference"]
    stop.number = signal.SIGTERM
    with pytest.raises(Exception, match="between two of its stages"):
        look.say("next")


# --- the maps --------------------------------------------------------------------------------------------------------


def _told(value: float | None) -> dict[str, Any]:
    return {"value": value, "ci95": None, "n": 1}


def _done_point(name: str, regimes: list[str], **values: Any) -> dict[str, Any]:
    share = {side: _told(0.25) for side in ("pair", "chosen", "rejected")}
    numbers = {"win_rates": [], "length": None, "active": share, "steps_to_90": _told(7.0), "regimes": regimes}
    return {"name": name, "values": values, "numbers": numbers}


def test_maps_of_one_key_and_of_three() -> None:
    line = maps([_done_point("a", ["linear"], b=1), _done_point("c", ["starved", "selective"], b=2)], ["b"])
    assert [one["title"] for one in line][::3] == [
        "Active pairs at the end",
        "Steps to 90 % of the final reward accuracy",
    ]
    assert (line[0]["rows"]["values"], line[0]["columns"]) == ([1, 2], {"key": None, "values": [None]})
    assert [row[0]["figure"]["value"] for row in line[0]["cells"]] == [25.0, 25.0]
    assert [(row[0]["linear"], row[0]["starved"], row[0]["n_seeds"]) for row in line[0]["cells"]] == [
        (1, 0, 1),
        (0, 1, 2),
    ]

    points = [_done_point(f"{b}{m}{t}", [], b=b, m=m, t=t) for b in (1, 2) for m in "xyz" for t in (None, 0.5)]
    several = maps(points, ["b", "m", "t"])
    assert [one["where"] for one in several[:2]] == [{"t": None}, {"t": 0.5}]
    assert [[cell["point"] for cell in row] for row in several[1]["cells"]] == [
        ["1x0.5", "1y0.5", "1z0.5"], ["2x0.5", "2y0.5", "2z0.5"],
    ]  # fmt: skip


# --- the page --------------------------------------------------------------------------------------------------------


def test_hostile_text_does_nothing_on_the_page() -> None:
    evil = "<script>alert(1)</script>\u202e"
    told = {
        "trimtab": "1", "folder": evil, "command": f"trimtab sweep {evil}", "seeds": [0], "notes": [evil],
        "grid": {"model.name": [evil, None]}, "base": {"model": {}, "data": {"source": evil}},
        "states": {"failed": 1}, "failed": [{"run": evil, "error": evil}], "highest": None,
        "points": [{"name": evil, "values": {"model.name": evil}, "n_done": 0, "n_starved": 0, "numbers": None,
                    "runs": [{"seed": 0, "state": "failed", "folder": evil, "error": evil, "seconds": 1.0,
                              "computed": {evil: 1.0}}]}],
        "maps": [{"title": "Active", "unit": "%", "where": {evil: evil}, "rows": {"key": evil, "values": [evil]},
                  "columns": {"key": None, "values": [None]},
                  "cells": [[{"point": evil, "figure": None, "starved": 0, "linear": 0, "n_seeds": 0}]]}],
        "cost": {"seconds": 1.0, "seconds_alone": 1.0, "share": 1.0, "served": {}},
    }  # fmt: skip
    shown = page.html(told)
    assert "<script" not in shown
    assert "\u202e" not in shown
    assert "&lt;script&gt;" in shown
    assert page.lines(told)
