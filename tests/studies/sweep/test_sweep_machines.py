"""A sweep that several machines share: real processes on one database, one of them killed."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from trial_runs import call, tree_of
from trimtab import store
from trimtab.errors import ConfigError
from trimtab.studies.sweep import command, machines, pooled
from trimtab.studies.sweep.ledger import NAME, Ledger, Wanted
from trimtab.studies.sweep.machines import Shared

pytest.importorskip("optuna")

BASE = {"keys": ["x"], "base": {"model": {"name": "m"}}, "points": {}}
STUDY = "trimtab sweep s"


def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'shared.db'}"


def wanted(root: Path, n: int) -> list[Wanted]:
    return [
        Wanted(f"p{i}/seed-0", f"p{i}", 0, str(root / f"p{i}"), {"x": i}, {"out": str(root), "x": i}, f"kin {i}")
        for i in range(n)
    ]


@contextmanager
def machine(tmp_path: Path, name: str, n: int, **told: Any) -> Iterator[Shared]:
    root = tmp_path / name
    root.mkdir(exist_ok=True)
    runs = wanted(root, n)
    with (
        store.database(root / NAME) as connection,
        machines.opened(url(tmp_path), STUDY, told=machines.about(BASE | told, runs)) as meeting,
    ):
        shared = Shared(Ledger(connection), meeting, root=root)
        shared.plan(runs, retry_failed=False, stop_starved=False)
        yield shared


NUMBERS = {"win_rates": [{"win_rate": {"value": 61.5}}]}

_TAKER = """
import os, signal, sys, time
from pathlib import Path
from trimtab import store
from trimtab.studies.sweep import machines
from trimtab.studies.sweep.ledger import NAME, Ledger
url, root, dies = sys.argv[1], Path(sys.argv[2]), len(sys.argv) > 3
with store.database(root / NAME) as connection, machines.opened(url, "trimtab sweep s") as meeting:
    ledger = machines.Shared(Ledger(connection), meeting, root=root)
    while (row := ledger.take()) is not None:
        print(row.name, flush=True)
        if dies:
            os.kill(os.getpid(), signal.SIGKILL)
        ledger.finish(row, "done", seconds=1.0, computed={}, numbers={"win_rates": []})
"""


def test_machines_never_make_one_run_twice(tmp_path: Path) -> None:
    n = 8
    for name in "ab":
        with machine(tmp_path, name, n):
            pass
    takers = [
        subprocess.Popen(
            [sys.executable, "-c", _TAKER, url(tmp_path), tmp_path / name], stdout=subprocess.PIPE, text=True
        )
        for name in "ab"
    ]
    taken = [taker.communicate(timeout=120)[0].split() for taker in takers]
    assert [taker.returncode for taker in takers] == [0, 0]
    assert sorted(name for names in taken for name in names) == sorted(f"p{i}/seed-0" for i in range(n))
    with machine(tmp_path, "a", n) as ledger:
        assert {row.state for row in ledger.rows()} == {"done"}
        assert ledger.is_over()


def test_the_run_of_a_dead_machine_is_taken_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "LEASE", 2)
    with machine(tmp_path, "a", 1), machine(tmp_path, "b", 1) as other:
        dead = subprocess.run(
            [sys.executable, "-c", _TAKER, url(tmp_path), tmp_path / "a", "dies"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (dead.returncode, dead.stdout) == (-signal.SIGKILL, "p0/seed-0\n"), dead.stderr
        (row,) = other.rows()
        assert row.state == "running"
        assert (row.elsewhere or "").endswith("/a/p0")
        assert not other.is_over()
        until = time.monotonic() + 20
        while (taken := other.take()) is None:
            assert time.monotonic() < until
            time.sleep(0.2)
        time.sleep(3)  # longer than the lease: the heart beats
        other.finish(taken, "done", seconds=1.5, computed={"training": 1.0}, numbers=NUMBERS)
        assert other.is_over()
    with machine(tmp_path, "a", 1) as first:
        (row,) = first.rows()
        assert (row.state, row.seconds, row.numbers, row.computed) == ("done", 1.5, NUMBERS, {"training": 1.0})
        assert (row.elsewhere or "").endswith("/b/p0")
        assert first.take() is None


def test_a_run_that_was_given_away_is_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import optuna

    with machine(tmp_path, "a", 1) as slow, machine(tmp_path, "b", 1) as quick:
        row = slow.take()
        assert row is not None
        study = optuna.load_study(study_name=STUDY, storage=url(tmp_path))
        study.tell(study.trials[0].number, state=optuna.trial.TrialState.FAIL)  # as the lease's end does
        again = quick.take()
        assert again is not None
        quick.finish(again, "done", seconds=1.0, computed={}, numbers=NUMBERS)
        slow.finish(row, "done", seconds=9.0, computed={}, numbers={"win_rates": []})
        assert "given away" in caplog.text
        assert [row.seconds for row in quick.rows()] == [1.0]
        assert [(row.seconds, row.numbers) for row in slow.rows()] == [(1.0, NUMBERS)]


def test_states_are_everyones(tmp_path: Path) -> None:
    with machine(tmp_path, "a", 3) as one, machine(tmp_path, "b", 3) as two:
        for state in ("failed", "starved", "stopped"):
            row = one.take()
            assert row is not None
            one.finish(row, state, seconds=1.0, computed={}, error=f"was {state}")
        assert [row.state for row in two.rows()] == ["failed", "starved", "waiting"]
        assert two.rows()[0].error == "was failed"
        mine = two.take()
        assert mine is not None
        assert mine.name == "p2/seed-0"
        assert two.take() is None
        two.plan(wanted(tmp_path / "b", 3), retry_failed=True, stop_starved=True)
        freed = two.take()
        assert freed is not None
        assert freed.name == "p0/seed-0"
        assert [row.state for row in one.rows()] == ["running", "starved", "running"]


def test_another_sweep_of_the_same_name_is_refused(tmp_path: Path) -> None:
    with machine(tmp_path, "a", 2):
        for n, told in ((2, {"base": {"model": {"name": "other"}}}), (3, {}), (2, {"keys": ["y"]})):
            with pytest.raises(ConfigError) as caught, machine(tmp_path, "b", n, **told):
                pass
            assert "another sweep" in str(caught.value)


def test_what_is_said_where_it_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for bad in (f"sqlite:///{tmp_path}/none/there.db", "postgresq://user:secret@host/x", "nonsense://"):
        with pytest.raises(ConfigError) as caught, machines.opened(bad, STUDY, told=BASE):
            pass
        assert "secret" not in str(caught.value)
        assert "--storage" in str(caught.value)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError) as caught, machines.opened(url(tmp_path), STUDY, told=BASE):
        pass
    assert "trimtab[sweep]" in str(caught.value)


def test_a_password_is_neither_shown_nor_kept() -> None:
    address = "postgresql://me:secret@host:5432/sweeps?sslmode=require&password=secret"
    assert machines.shown(address) == "postgresql://host:5432/sweeps"
    for words in (["--storage", address], [f"--storage={address}"]):
        typed = shlex.join(["trimtab", "sweep", "f.toml", *words])
        assert "postgresql://host:5432/sweeps" in command.without_password(typed, address)
        assert "secret" not in command.without_password(typed, address)


def test_figures_pooled_from_what_runs_told() -> None:
    """Two seeds, 50 and 60, each ± 4 on its prompts: the mean is 55, with more than the prompts' error around it."""

    def run(value: float) -> dict[str, Any]:
        figure = {"value": value, "ci95": [value - 4, value + 4], "n": 400}
        return {
            "win_rates": [{"judge": "oracle", "kind": "true", "label": "o", "role": "truth", "win_rate": figure}],
            "mark": None, "true_score": None, "length": {"unit": "tokens", "mean": figure}, "heldout_accuracy": None,
            "active": {side: {"value": value / 100} for side in ("pair", "chosen", "rejected")},
            "steps_to_90": {"value": None}, "regimes": ["selective"],
        }  # fmt: skip

    told = pooled.of_runs([run(50.0), run(60.0)])
    rate = told["win_rates"][0]["win_rate"]
    assert (rate["value"], rate["n_seeds"], rate["n"]) == (55.0, 2, 400)
    assert rate["ci95"][1] - rate["ci95"][0] > 8
    assert told["active"]["pair"]["value"] == pytest.approx(0.55)
    assert told["steps_to_90"]["value"] is None
    assert told["regimes"] == ["selective"] * 2


TINY = ("--windtunnel.pairs", "16", "--windtunnel.prompts", "8", "--train.batch-pairs", "8", "--train.epochs", "12")


@pytest.mark.slow
def test_two_machines_map_one_sweep_though_one_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first machine is killed in its first run; the second makes that run too, and its page has all of them."""
    monkeypatch.setattr(machines, "LEASE", 4)
    words = ["sweep", *TINY, "--grid", "margin=0.5,1", "--seeds", "2", "--quiet", "--storage", url(tmp_path)]

    def start(name: str) -> subprocess.Popen[bytes]:
        script = "import sys; from trimtab import cli; from trimtab.studies.sweep import machines; "
        script += "machines.LEASE = 4; cli.main(sys.argv[1:])"
        own = os.environ | {"TRIMTAB_HOME": str(tmp_path / name / "home"), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [sys.executable, "-c", script, *words, "--out", tmp_path / name / "shared"],
            env=own,
            stderr=subprocess.DEVNULL,
        )

    first = start("a")
    metrics = tmp_path / "a" / "shared" / "points" / "margin=0.5" / "seed-0" / "metrics.jsonl"
    until = time.monotonic() + 120
    while not (metrics.is_file() and metrics.read_bytes().count(b"\n") >= 2):
        assert time.monotonic() < until
        assert first.poll() is None
        time.sleep(0.05)
    second = start("b")
    time.sleep(0.2)
    first.kill()
    first.wait()
    assert second.wait(timeout=300) == 0
    told = tree_of(tmp_path / "b" / "shared" / "sweep.json")
    assert told["states"] == {"done": 4}
    # the first machine again: nothing is left to do, and its page says where the runs are
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path / "a" / "home"))
    code, _, said = call([*words, "--out", tmp_path / "a" / "shared"], capsys)
    assert code == 0, said
    again = tree_of(tmp_path / "a" / "shared" / "sweep.json")
    assert (again["states"], again["elsewhere"]) == ({"done": 4}, 4)
    values = [[p["numbers"]["win_rates"][0]["win_rate"]["value"] for p in one["points"]] for one in (told, again)]
    assert values[0] == pytest.approx(values[1])
    shown = (tmp_path / "a" / "shared" / "sweep.html").read_text(encoding="utf-8")
    assert re.search(r"Not counted here: 4 runs of other machines", shown)
    assert "seed-0/report.html" not in shown
    code, _, said = call([*words, "--train.learning-rate", "1e-3", "--out", tmp_path / "c" / "shared"], capsys)
    assert code == 2
    assert "train.learning_rate" in said
