"""A sweep on a real Ray cluster of two nodes, and on a SLURM cluster of two slots: the ledger of the local sweep."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import slurm_cluster
from trial_runs import rows_of, tree_of
from trimtab import store
from trimtab.studies.sweep.run_table import FILE_NAME, Run, RunTable

TINY = (
    *("--windtunnel.pairs", "16"), *("--windtunnel.prompts", "8"), *("--train.batch-pairs", "8"),
    *("--engine.threads", "1"),
)  # fmt: skip
NINE = (
    "--train.max-steps",
    "8",
    "--train.learning-rate",
    "1e-3",
    "--grid",
    "margin=0.5,1,2",
    "--grid",
    "beta=0.05,0.3,2",
)
LONG = ("--train.epochs", "12", "--train.save-every", "2", "--grid", "margin=0.5,1")  # 24 steps
RAY_CLUSTER = Path(__file__).parents[2] / "ray_cluster.py"

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="no Ray here: pip install 'trimtab[ray]'"
)
needs_submitit = pytest.mark.skipif(
    importlib.util.find_spec("submitit") is None, reason="no submitit here: pip install 'trimtab[slurm]'"
)
needs_slurm = pytest.mark.skipif(
    slurm_cluster.missing() is not None, reason=f"no SLURM here: {slurm_cluster.missing()}"
)


@contextmanager
def sweep(root: Path, *words: str, variables: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """The command in a process of its own, with a cache of its own."""
    environment = os.environ | {"TRIMTAB_HOME": str(root.parent / f"home-{root.name}")} | dict(variables or {})
    command = [sys.executable, "-m", "trimtab.cli", "sweep", *TINY, *words, "--out", str(root), "--quiet"]
    with subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def whole_sweep(root: Path, *words: str, variables: Mapping[str, str] | None = None) -> str:
    """What it says on stderr."""
    with sweep(root, *words, variables=variables) as process:
        _, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    return str(err)


def runs_of(root: Path) -> list[Run]:
    with store.database(root / FILE_NAME) as connection:
        return RunTable(connection).runs()


def ledger(root: Path) -> dict[str, Any]:
    """Every run with every number of it; neither times nor places."""
    return {
        run.name: {
            "point": run.point, "seed": run.seed, "settings": run.settings, "cache_key": run.cache_key,
            "state": run.state, "error": run.error, "tasks": sorted(run.task_seconds),
            "config": {**run.config, "out": ""},
            "numbers": None if run.numbers is None else run.numbers.to_json(),
        }
        for run in runs_of(root)
    }  # fmt: skip


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("local") / "nine"
    whole_sweep(root, *NINE)
    rows = ledger(root)
    assert [row["state"] for row in rows.values()] == ["done"] * 9
    figures = {json.dumps(row["numbers"]) for row in rows.values()}
    assert len(figures) >= 6, "points that came to the same numbers would show nothing"
    return rows


# --- Ray -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def ray_head(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The cluster's process; its first line is the head's address and folder."""
    with (tmp_path / "ray.err").open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, str(RAY_CLUSTER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    try:
        yield process
    finally:
        process.communicate()


def address_of(head: subprocess.Popen[str]) -> tuple[str, Path]:
    assert head.stdout is not None
    line = head.stdout.readline()
    assert line, "the cluster did not start"
    address, folder = line.split()
    return address, Path(folder)


@pytest.mark.slow
@needs_ray
def test_ray_gives_the_ledger_of_the_local_sweep(
    tmp_path: Path, local: dict[str, Any], ray_head: subprocess.Popen[str]
) -> None:
    address, _ = address_of(ray_head)
    whole_sweep(tmp_path / "nine", *NINE, "--on", "ray", variables={"RAY_ADDRESS": address})
    assert ledger(tmp_path / "nine") == local


@pytest.mark.slow
@needs_ray
def test_a_killed_node_loses_no_run_and_no_number(tmp_path: Path, ray_head: subprocess.Popen[str]) -> None:
    """SIGKILL to a node in the middle of training: its run goes on from its checkpoint on the other node."""
    address, folder = address_of(ray_head)
    root = tmp_path / "long"
    with sweep(root, *LONG, "--on", "ray", variables={"RAY_ADDRESS": address}) as process:
        working = {path.parent for path in _wait_for_steps(root, n_runs=2, steps=6, process=process)}
        assert ray_head.stdin is not None
        print(file=ray_head.stdin, flush=True)
        _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert re.search(r"lost \(\w*(?:Actor|Node)\w*Error.*it is made again from its last checkpoint", err)
    log = "".join(path.read_text(errors="replace") for path in (folder / "session_latest" / "logs").glob("worker*.err"))
    resumed = re.findall(r"(\S+) \| train: goes on after step (\d+)", log)
    assert resumed
    assert all(int(step) >= 2 and root / "points" / name in working for name, step in resumed)
    whole_sweep(tmp_path / "again", *LONG)
    assert _numbers(root) == _numbers(tmp_path / "again")
    for run in runs_of(root):
        assert [row["step"] for row in rows_of(Path(run.folder) / "metrics.jsonl")] == list(range(1, 25))


def _numbers(root: Path) -> dict[str, Any]:
    return {name: (row["state"], row["numbers"]) for name, row in ledger(root).items()}


def _wait_for_steps(root: Path, *, n_runs: int, steps: int, process: subprocess.Popen[str]) -> list[Path]:
    """The metrics of the first runs that have got so far, when they are so many."""
    deadline = time.monotonic() + 240
    while True:
        files = [path for path in root.glob("points/*/*/metrics.jsonl") if path.read_bytes().count(b"\n") >= steps]
        if len(files) >= n_runs:
            return files
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)


@pytest.mark.slow
@needs_ray
def test_a_signal_stops_the_runs_on_ray_with_a_checkpoint(tmp_path: Path, ray_head: subprocess.Popen[str]) -> None:
    address, folder = address_of(ray_head)
    root, variables = tmp_path / "long", {"RAY_ADDRESS": address}
    with sweep(root, *LONG, "--on", "ray", variables=variables) as process:
        _wait_for_steps(root, n_runs=1, steps=5, process=process)
        process.terminate()
        _, err = process.communicate(timeout=120)
    assert process.returncode == 143, err
    assert "the same command goes on from there" in err
    states = {run.name: run.state for run in runs_of(root)}
    assert "stopped" in states.values()
    assert "failed" not in states.values()
    whole_sweep(root, *LONG, "--on", "ray", variables=variables)
    log = "".join(path.read_text(errors="replace") for path in (folder / "session_latest" / "logs").glob("worker*.err"))
    resumed = re.findall(r"(\S+) \| train: goes on after step \d+", log)
    assert set(resumed) <= {name for name, state in states.items() if state == "stopped"}
    assert resumed


@needs_ray
def test_a_head_that_does_not_answer_is_a_message(tmp_path: Path) -> None:
    with sweep(
        tmp_path / "x", "--grid", "margin=1,2", "--on", "ray", variables={"RAY_ADDRESS": "127.0.0.1:9"}
    ) as process:
        _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert re.search(
        r"no head of a Ray cluster answers at 127\.0\.0\.1:9 .*\n  → start one with `ray start --head`", err
    )


# --- SLURM -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with slurm_cluster.slurm_cluster(tmp_path_factory.mktemp("slurm") / "s", slots=2) as variables:
        yield variables


@pytest.mark.slow
@needs_slurm
@needs_submitit
def test_slurm_gives_the_ledger_of_the_local_sweep(
    tmp_path: Path, local: dict[str, Any], slurm: dict[str, str]
) -> None:
    whole_sweep(tmp_path / "nine", *NINE, "--on", "slurm", variables=slurm)
    assert ledger(tmp_path / "nine") == local


@pytest.mark.slow
@needs_slurm
@needs_submitit
def test_a_job_that_slurm_ends_is_made_again_from_its_checkpoint(tmp_path: Path, slurm: dict[str, str]) -> None:
    """Two jobs in training: to the first the signal before its time limit, to the second SIGKILL."""
    root, environment = tmp_path / "long", os.environ | slurm
    with sweep(root, *LONG, "--on", "slurm", variables=slurm) as process:
        _wait_for_steps(root, n_runs=2, steps=5, process=process)
        words = ["squeue", "--noheader", "--states=R", "--format=%i"]
        first, second = subprocess.run(
            words, env=environment, capture_output=True, text=True, check=True
        ).stdout.split()
        subprocess.run(["scancel", "--signal=USR2", first], env=environment, check=True)
        (number,) = _processes_of(second)  # scancel would send SIGTERM before SIGKILL
        os.kill(number, signal.SIGKILL)
        _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert re.search(rf"lost \(SLURM's job {second} ended without a result, see .*\); it is made again", err)
    assert len(re.findall(r"lost \(SIGTERM: .*\); it is made again", err)) == 1
    logs = "".join(path.read_text() for path in (root / "slurm").rglob("*_log.err"))
    assert len(re.findall(r"train: goes on after step \d+", logs)) == 2
    whole_sweep(tmp_path / "again", *LONG)
    assert _numbers(root) == _numbers(tmp_path / "again")


def _processes_of(job: str) -> list[int]:
    """The Python processes of a SLURM job."""
    numbers = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            words = (folder / "cmdline").read_bytes().split(b"\0")
            variables = (folder / "environ").read_bytes().split(b"\0")
            if (
                b"python" in words[0]
                and b"submitit.core._submit" in words
                and f"SLURM_JOB_ID={job}".encode() in variables
            ):
                numbers.append(int(folder.name))
    return numbers


@pytest.mark.slow
@needs_slurm
@needs_submitit
def test_ctrl_c_empties_the_queue_and_a_later_start_goes_on(tmp_path: Path, slurm: dict[str, str]) -> None:
    """SIGTERM to the sweep; then SIGKILL, after which its jobs are still in the queue until the next start."""
    root, environment = tmp_path / "long", os.environ | slurm

    def jobs() -> list[str]:
        asked = subprocess.run(
            ["squeue", "-h", "-o", "%i"], env=environment, capture_output=True, text=True, check=True
        )
        return asked.stdout.split()

    with sweep(root, *LONG, "--on", "slurm", variables=slurm) as process:
        _wait_for_steps(root, n_runs=1, steps=5, process=process)
        process.terminate()
        _, err = process.communicate(timeout=120)
    assert process.returncode == 143, err
    deadline = time.monotonic() + 30  # results are there, and the jobs are about to end
    while jobs() and time.monotonic() < deadline:
        time.sleep(0.5)
    assert jobs() == []
    assert "stopped" in {run.state for run in runs_of(root)}
    with sweep(root, *LONG, "--on", "slurm", variables=slurm) as process:
        _wait_for_steps(root, n_runs=1, steps=9, process=process)
        process.kill()
    left = jobs()
    assert left
    whole_sweep(root, *LONG, "--on", "slurm", variables=slurm)
    assert {run.state for run in runs_of(root)} == {"done"}
    assert tree_of(root / "sweep.json")["states"] == {"done": 2}


# --- what is not there -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cluster", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_missing_extra_is_a_message(
    cluster: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from trial_runs import call

    monkeypatch.setitem(sys.modules, package, None)
    code, _, err = call(["sweep", *TINY, "--grid", "margin=1,2", "--on", cluster, "--out", tmp_path / "x"], capsys)
    assert code == 2
    assert f"pip install 'trimtab[{cluster}]'" in err
    assert err.count("→") == 1
