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
from dataclasses import replace
from pathlib import Path

import pytest

from sweep_figures import numbers, truth, within
from trial_runs import call, tree_of
from trimtab.errors import ConfigError
from trimtab.studies.sweep import command, shared_runs, shared_study
from trimtab.studies.sweep.identity import SweepIdentity
from trimtab.studies.sweep.numbers import PointNumbers, pool_answers, pool_training
from trimtab.studies.sweep.run_table import Outcome, Run, State
from trimtab.studies.sweep.shared_runs import SharedRuns
from trimtab.studies.sweep.shared_study import StudyAddress, StudyContent

pytest.importorskip("optuna")

IDENTITY = SweepIdentity(("x",), {"model": {"name": "m"}}, {})
STUDY = "trimtab sweep s"
NUMBERS = numbers(rates=[truth(61.5)])
NOTHING = numbers()


def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'shared.db'}"


def planned(root: Path, n: int) -> list[Run]:
    return [
        Run(f"p{i}/seed-0", f"p{i}", 0, str(root / f"p{i}"), {"x": i}, {"out": str(root), "x": i}, f"key {i}")
        for i in range(n)
    ]


def outcome(state: State, seconds: float = 1.0, *, figures: PointNumbers | None = None, error: str = "") -> Outcome:
    return Outcome(state, seconds, {"training": 1.0}, figures, error or None)


@contextmanager
def machine(tmp_path: Path, name: str, n: int, *, sweep: SweepIdentity = IDENTITY) -> Iterator[SharedRuns]:
    root = tmp_path / name
    root.mkdir(exist_ok=True)
    runs = planned(root, n)
    content = StudyContent.of(sweep, runs)
    with shared_runs.open_runs(root, StudyAddress(url(tmp_path), STUDY), content=content) as shared:
        assert isinstance(shared, SharedRuns)
        shared.plan(runs, retry_failed=False, stop_starved=False)
        yield shared


_TAKER = """
import os, signal, sys
from pathlib import Path
from trimtab.studies.sweep import shared_runs, shared_study
from trimtab.studies.sweep.run_table import Outcome
url, root, dies = sys.argv[1], Path(sys.argv[2]), len(sys.argv) > 3
with shared_runs.open_runs(root, shared_study.StudyAddress(url, "trimtab sweep s")) as runs:
    while (run := runs.take()) is not None:
        print(run.name, flush=True)
        if dies:
            os.kill(os.getpid(), signal.SIGKILL)
        runs.finish(run, Outcome("done", 1.0, {}))
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
    names = [taker.communicate(timeout=120)[0].split() for taker in takers]
    assert [taker.returncode for taker in takers] == [0, 0]
    assert sorted([*names[0], *names[1]]) == sorted(f"p{i}/seed-0" for i in range(n))
    with machine(tmp_path, "a", n) as runs:
        assert {run.state for run in runs.runs()} == {"done"}
        assert runs.is_over()


def test_the_run_of_a_dead_machine_is_taken_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_study, "LEASE", 2)
    with machine(tmp_path, "a", 1), machine(tmp_path, "b", 1) as second:
        dying = subprocess.run(
            [sys.executable, "-c", _TAKER, url(tmp_path), tmp_path / "a", "dies"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (dying.returncode, dying.stdout) == (-signal.SIGKILL, "p0/seed-0\n"), dying.stderr
        (run,) = second.runs()
        assert run.state == "running"
        assert (run.elsewhere or "").endswith("/a/p0")
        assert not second.is_over()
        deadline = time.monotonic() + 20
        while (run_again := second.take()) is None:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        time.sleep(3)  # longer than the lease: the heart beats
        second.finish(run_again, outcome("done", 1.5, figures=NUMBERS))
        assert second.is_over()
    with machine(tmp_path, "a", 1) as first:
        (run,) = first.runs()
        assert (run.state, run.seconds, run.numbers, run.task_seconds) == ("done", 1.5, NUMBERS, {"training": 1.0})
        assert (run.elsewhere or "").endswith("/b/p0")
        assert first.take() is None


def test_a_run_that_was_given_away_is_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import optuna

    with machine(tmp_path, "a", 1) as slow, machine(tmp_path, "b", 1) as quick:
        run = slow.take()
        assert run is not None
        study = optuna.load_study(study_name=STUDY, storage=url(tmp_path))
        study.tell(study.trials[0].number, state=optuna.trial.TrialState.FAIL)  # as the lease's end does
        run_again = quick.take()
        assert run_again is not None
        quick.finish(run_again, outcome("done", figures=NUMBERS))
        slow.finish(run, outcome("done", 9.0, figures=NOTHING))
        assert "given away" in caplog.text
        assert [run.seconds for run in quick.runs()] == [1.0]
        assert [(run.seconds, run.numbers) for run in slow.runs()] == [(1.0, NUMBERS)]


def test_states_are_everyones(tmp_path: Path) -> None:
    states: tuple[State, ...] = ("failed", "starved", "stopped")
    with machine(tmp_path, "a", 3) as first, machine(tmp_path, "b", 3) as second:
        for state in states:
            run = first.take()
            assert run is not None
            first.finish(run, outcome(state, error=f"was {state}"))
        assert [run.state for run in second.runs()] == ["failed", "starved", "waiting"]
        assert second.runs()[0].error == "was failed"
        run = second.take()
        assert run is not None
        assert run.name == "p2/seed-0"
        assert second.take() is None
        second.plan(planned(tmp_path / "b", 3), retry_failed=True, stop_starved=True)
        run = second.take()
        assert run is not None
        assert run.name == "p0/seed-0"
        assert [run.state for run in first.runs()] == ["running", "starved", "running"]


def test_another_sweep_of_the_same_name_is_refused(tmp_path: Path) -> None:
    other_model = replace(IDENTITY, base={"model": {"name": "other"}})
    other_key = replace(IDENTITY, keys=("y",))
    with machine(tmp_path, "a", 2):
        for n, sweep, difference in (
            (2, other_model, "model.name"), (2, other_key, "the keys x"), (3, IDENTITY, "values, seeds")
        ):  # fmt: skip
            message = f"another sweep .* it differs in {difference}"
            with pytest.raises(ConfigError, match=message), machine(tmp_path, "b", n, sweep=sweep):
                pass


_JOINER = """
import sys, time
from pathlib import Path
import optuna, sqlalchemy
from trimtab.studies.sweep import shared_runs, shared_study
from trimtab.studies.sweep.identity import SweepIdentity
url, root, start = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
content = shared_study.StudyContent(SweepIdentity(("x",), {}, {}), "same")
print("ready", flush=True)
while not start.exists():
    time.sleep(0.001)
with shared_runs.open_runs(root, shared_study.StudyAddress(url, "s"), content=content):
    pass
"""


def test_machines_that_start_at_once_on_a_fresh_database_all_join(tmp_path: Path) -> None:
    """All of them find no table and make them; all but one are told by the database that they are there already."""
    start = tmp_path / "start"
    joiners = []
    for name in "abcd":
        (tmp_path / name).mkdir()
        words = [sys.executable, "-c", _JOINER, url(tmp_path), tmp_path / name, start]
        joiners.append(subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    for joiner in joiners:
        assert joiner.stdout is not None
        assert joiner.stdout.readline() == "ready\n"
    start.touch()
    errors = [joiner.communicate(timeout=120)[1] for joiner in joiners]
    assert [joiner.returncode for joiner in joiners] == [0] * 4, errors


def test_a_database_that_cannot_be_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_study, "CREATION_WAITS", (0.0,))
    for address in (f"sqlite:///{tmp_path}/none/there.db", "postgresq://user:secret@host/x", "nonsense://"):
        message = refusal(tmp_path, address)
        assert "secret" not in message
        assert "--storage" in message
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert "trimtab[sweep]" in refusal(tmp_path, url(tmp_path))


def refusal(root: Path, address: str) -> str:
    with pytest.raises(ConfigError) as error, shared_runs.open_runs(root, StudyAddress(address, STUDY)):
        pass
    return str(error.value)


def test_a_password_is_neither_shown_nor_kept() -> None:
    address = "postgresql://me:secret@host:5432/sweeps?sslmode=require&password=secret"
    assert shared_study.public_url(address) == "postgresql://host:5432/sweeps"
    for words in (["--storage", address], [f"--storage={address}"]):
        typed = shlex.join(["trimtab", "sweep", "f.toml", *words])
        assert "postgresql://host:5432/sweeps" in command.without_password(typed, address)
        assert "secret" not in command.without_password(typed, address)


def test_figures_pooled_from_those_of_runs() -> None:
    """Two seeds, 50 and 60, each ± 4 on its prompts: the mean is 55, with more than the prompts' error around it."""
    runs = [
        numbers(rates=[truth(value)], length=within(value, 4.0, unit="tokens"), active=value / 100, steps=None)
        for value in (50.0, 60.0)
    ]
    answers, training = pool_answers([run.answers for run in runs]), pool_training([run.training for run in runs])
    rate = answers.win_rates[0].estimate
    assert (rate.value, rate.n_seeds, rate.n) == (55.0, 2, 400)
    assert rate.ci95 is not None
    assert rate.ci95[1] - rate.ci95[0] > 8
    assert answers.length is not None
    assert (answers.length.value, answers.length.unit) == (55.0, "tokens")
    assert training.active["pair"].value == pytest.approx(0.55)
    assert (training.steps_to_90.value, training.steps_to_90.n_missing) == (None, 2)
    assert training.regimes == ("selective", "selective")


TINY = ("--windtunnel.pairs", "16", "--windtunnel.prompts", "8", "--train.batch-pairs", "8", "--train.epochs", "12")


@pytest.mark.slow
def test_two_machines_map_one_sweep_though_one_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first machine is killed in its first run; the second makes that run too, and its page has all of them."""
    monkeypatch.setattr(shared_study, "LEASE", 4)
    words = ["sweep", *TINY, "--grid", "margin=0.5,1", "--seeds", "2", "--quiet", "--storage", url(tmp_path)]

    def start(name: str) -> subprocess.Popen[bytes]:
        script = "import sys; from trimtab import cli; from trimtab.studies.sweep import shared_study; "
        script += "shared_study.LEASE = 4; cli.main(sys.argv[1:])"
        environment = os.environ | {"TRIMTAB_HOME": str(tmp_path / name / "home"), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [sys.executable, "-c", script, *words, "--out", tmp_path / name / "shared"],
            env=environment,
            stderr=subprocess.DEVNULL,
        )

    first = start("a")
    metrics = tmp_path / "a" / "shared" / "points" / "margin=0.5" / "seed-0" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.is_file() and metrics.read_bytes().count(b"\n") >= 2):
        assert time.monotonic() < deadline
        assert first.poll() is None
        time.sleep(0.05)
    second = start("b")
    time.sleep(0.2)
    first.kill()
    first.wait()
    assert second.wait(timeout=300) == 0
    tree = tree_of(tmp_path / "b" / "shared" / "sweep.json")
    assert tree["states"] == {"done": 4}
    # the first machine again: nothing is left to do, and its page says where the runs are
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path / "a" / "home"))
    code, _, err = call([*words, "--out", tmp_path / "a" / "shared"], capsys)
    assert code == 0, err
    again = tree_of(tmp_path / "a" / "shared" / "sweep.json")
    assert (again["states"], again["elsewhere"]) == ({"done": 4}, 4)
    values = [[p["numbers"]["win_rates"][0]["win_rate"]["value"] for p in each["points"]] for each in (tree, again)]
    assert values[0] == pytest.approx(values[1])
    html = (tmp_path / "a" / "shared" / "sweep.html").read_text(encoding="utf-8")
    assert re.search(r"Not counted here: 4 runs of other machines", html)
    assert "seed-0/report.html" not in html
    code, _, err = call([*words, "--train.learning-rate", "1e-3", "--out", tmp_path / "c" / "shared"], capsys)
    assert code == 2
    assert "train.learning_rate" in err
