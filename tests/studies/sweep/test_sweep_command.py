"""`trimtab sweep` on the embedded world: one reference for all points, resumed after a kill, honest about failures."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from trial_runs import alone, call, contents, rows_of, tree_of
from trimtab import cli, store
from trimtab.engine import models
from trimtab.studies.sweep import run_progress
from trimtab.studies.sweep.run_table import FILE_NAME, Run, RunTable
from trimtab.windtunnel import model_folder

SMALL = (
    *("--windtunnel.pairs", "16"),
    *("--windtunnel.prompts", "8"),
    *("--train.max-steps", "2"),
    *("--train.batch-pairs", "8"),
)


def runs_of(root: Path) -> list[Run]:
    with store.database(root / FILE_NAME) as connection:
        return RunTable(connection).runs()


@pytest.fixture(scope="module")
def sweep_run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A grid of 2 × 2 with one seed."""
    parent = tmp_path_factory.mktemp("sweeps")
    root = parent / "sweep"
    words = ["sweep", *SMALL, "--grid", "margin=0.5,1", "--grid", "beta=0.1,3", "--out", str(root), "--quiet"]
    with alone(parent / "home"):
        cli.main(words)
    return {"root": root, "home": parent / "home", "words": words}


@pytest.fixture
def same_home(sweep_run: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_HOME", str(sweep_run["home"]))


def test_every_point_is_a_run_and_the_reference_is_computed_once(sweep_run: dict[str, Any]) -> None:
    tree = tree_of(sweep_run["root"] / "sweep.json")
    assert [point["name"] for point in tree["points"]] == [
        "margin=0.5,beta=0.1", "margin=0.5,beta=3", "margin=1,beta=0.1", "margin=1,beta=3",
    ]  # fmt: skip
    assert tree["states"] == {"done": 4}
    folders = [Path(point["runs"][0]["folder"]) for point in tree["points"]]
    for folder, margin, beta in zip(folders, (0.5, 0.5, 1, 1), (0.1, 3, 0.1, 3), strict=True):
        assert folder.is_relative_to(sweep_run["root"] / "points")
        assert (folder / "report.html").is_file()
        section = tree_of(folder / "config.json")["objective"]
        assert (section["margin"], section["beta"]) == (margin, beta)
    references = [tree_of(folder / "reference.json") for folder in folders]
    assert [(tree["rows"], tree["computed"]) for tree in references] == [(32, 0)] * 4  # a job before all runs did it
    assert len({tree["digest"] for tree in references}) == 1
    work = [point["runs"][0]["computed"] for point in tree["points"]]
    shared = {"reference", "answers of the unaligned model", *(f"sampling answers to be labelled ({i} of 2)" for i in (1, 2))}  # fmt: skip  # noqa: E501  # one set
    assert shared <= work[0].keys()
    for served in work[1:]:
        assert not shared & served.keys()
        assert "training" in served


def test_the_cost_is_what_was_measured(sweep_run: dict[str, Any]) -> None:
    tree = tree_of(sweep_run["root"] / "sweep.json")
    runs = [point["runs"][0] for point in tree["points"]]
    seconds = sum(run["seconds"] for run in runs)
    first = runs[0]["computed"]
    shared = sum(first[task] for task in first if re.match("sampling|reference|answers of the un", task))
    assert tree["cost"]["seconds"] == pytest.approx(seconds)
    assert tree["cost"]["seconds_alone"] == pytest.approx(seconds + 3 * shared)
    assert 0 < tree["cost"]["share"] < 1


def test_the_figures_are_those_of_the_runs_own_reports(sweep_run: dict[str, Any]) -> None:
    tree = tree_of(sweep_run["root"] / "sweep.json")
    for point in tree["points"]:
        folder = Path(point["runs"][0]["folder"])
        report, numbers = tree_of(folder / "report.json"), point["numbers"]
        rates = {(row["judge"], row["kind"]): row["win_rate"] for row in numbers["win_rates"]}
        for judge in report["benchmark"]["judges"]:
            kind = "true" if judge["judge"] == "oracle" else "raw"
            assert rates[judge["judge"], kind] == judge["win_rate"]
        assert rates["biased", "length-controlled"]["n"] == 8
        rows = rows_of(folder / "metrics.jsonl")
        assert numbers["active"]["pair"]["value"] == rows[-1]["active/pair"]
        assert numbers["regimes"] == [report["training"]["seeds"][0]["regime"]["name"]]
        assert numbers["length"]["mean"] == report["benchmark"]["lengths"]["tokens"]["after"]
    titles = [figure_map["title"] for figure_map in tree["maps"]]
    assert any(title.startswith("True win rate") for title in titles)
    assert any(title.startswith("Length-controlled win rate") for title in titles)
    assert {"Active pairs at the end", "Steps to 90 % of the final reward accuracy"} <= set(titles)
    by_name = {point["name"]: point for point in tree["points"]}
    cell = tree["maps"][0]["cells"][1][0]  # rows are margins, columns betas
    assert cell["point"] == "margin=1,beta=0.1"
    assert cell["figure"] == by_name["margin=1,beta=0.1"]["numbers"]["win_rates"][0]["win_rate"]


def test_the_page_stands_alone(sweep_run: dict[str, Any]) -> None:
    html = (sweep_run["root"] / "sweep.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in html
    assert "<script" not in html
    assert not re.search(r"(?:src|href)\s*=\s*[\"']?(?:https?:|//)", html)
    assert "trimtab sweep --windtunnel.pairs 16" in html
    assert 'href="points/margin=1,beta=3/seed-0/report.html"' in html
    assert html.count('class="map"') == len(tree_of(sweep_run["root"] / "sweep.json")["maps"])


@pytest.mark.usefixtures("same_home")
def test_again_makes_nothing_again_and_json_stands_alone(
    sweep_run: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import json

    monkeypatch.setattr(models, "load", lambda *_, **__: pytest.fail("a model was loaded"))
    before = contents(sweep_run["root"] / "points")
    code, out, err = call([*sweep_run["words"], "--json"], capsys)
    assert code == 0, err
    assert json.loads(out) == tree_of(sweep_run["root"] / "sweep.json")
    assert "4 of them done already" in err
    assert contents(sweep_run["root"] / "points") == before


@pytest.mark.usefixtures("same_home")
def test_another_configuration_in_the_same_folder_is_refused(
    sweep_run: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call([*sweep_run["words"], "--train.epochs", "7"], capsys)
    assert code == 2
    assert "train.epochs" in err
    assert call(["sweep", "--grid", "margn=1,2"], capsys)[0] == 2


@pytest.mark.usefixtures("same_home")
def test_seeds_are_a_factor_and_pooled(
    sweep_run: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sweep", *SMALL, "--grid", "margin=1", "--seeds", "2", "--out", tmp_path, "--quiet"]
    code, out, err = call(words, capsys)
    assert code == 0, err
    assert "1 point with 2 seeds each: 2 done" in out
    (point,) = tree_of(tmp_path / "sweep.json")["points"]
    assert [run["seed"] for run in point["runs"]] == [0, 1]
    singles = [tree_of(Path(run["folder"]) / "report.json")["benchmark"]["judges"][0] for run in point["runs"]]
    pooled = point["numbers"]["win_rates"][0]["win_rate"]
    assert pooled["n_seeds"] == 2
    assert pooled["value"] == pytest.approx(sum(single["win_rate"]["value"] for single in singles) / 2)
    assert point["numbers"]["steps_to_90"]["n_seeds"] == 2
    assert (tmp_path / "points" / "margin=1" / "report.html").is_file()


@pytest.mark.usefixtures("same_home")
def test_a_failing_point_stops_no_other_and_is_tried_again_when_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    late = tmp_path / "late"
    words = ["sweep", *SMALL, "--grid", f"model={late},windtunnel", "--out", tmp_path / "sweep", "--quiet"]
    code, out, err = call(words, capsys)
    assert code == 1
    assert "1 of 2 runs failed" in err
    assert "2 points with 1 seed each: 1 done, 1 failed" in out
    first, second = tree_of(tmp_path / "sweep" / "sweep.json")["points"]
    assert (first["runs"][0]["state"], second["runs"][0]["state"]) == ("failed", "done")
    assert str(late) in first["runs"][0]["error"]
    shutil.copytree(model_folder(), late)
    code, _, err = call(words, capsys)
    assert code == 1
    assert "--retry-failed tries it again" in err
    code, out, err = call([*words, "--retry-failed"], capsys)
    assert code == 0, err
    assert "2 done" in out


@pytest.mark.usefixtures("same_home")
def test_a_starving_run_is_ended_early_and_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_progress, "STARVED_BELOW", 1.1)  # so that every run starves at its first step
    words = ["sweep", *SMALL, "--grid", "margin=1", "--out", tmp_path, "--quiet"]
    code, out, err = call([*words, "--stop-starved"], capsys)
    assert code == 0, err
    (point,) = tree_of(tmp_path / "sweep.json")["points"]
    assert (point["n_done"], point["n_starved"], point["numbers"]["regimes"]) == (0, 1, ["starved"])
    assert point["runs"][0]["error"].startswith("stopped after step 1 of 2")
    assert point["numbers"]["win_rates"] == []
    assert "Starved: margin=1" in out
    assert 'class="starved "' in (tmp_path / "sweep.html").read_text(encoding="utf-8")


LONG = ("--windtunnel.pairs", "32", "--windtunnel.prompts", "8", "--train.epochs", "4", "--train.batch-pairs", "8")


def _wait_for_steps(metrics: Path, n: int, *, until: float) -> bool:
    while time.monotonic() < until:
        if metrics.is_file() and len(metrics.read_text(encoding="utf-8").splitlines()) >= n:
            return True
        time.sleep(0.02)
    return False


def test_a_killed_sweep_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGKILL in the middle of the first point; then SIGTERM in the second; then to the end."""
    root, home = tmp_path / "sweep", tmp_path / "home"
    monkeypatch.setenv("TRIMTAB_HOME", str(home))
    words = ["sweep", *LONG, "--train.save-every", "2", "--grid", "margin=0.5,1", "--out", str(root), "--quiet"]
    process = subprocess.Popen(
        [sys.executable, "-m", "trimtab.cli", *words], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    first, second = (root / "points" / f"margin={margin}" / "seed-0" for margin in ("0.5", "1"))
    assert _wait_for_steps(first / "metrics.jsonl", 4, until=time.monotonic() + 60)
    process.kill()
    process.wait()
    assert [run.state for run in runs_of(root)] == ["running", "waiting"]

    def interrupt() -> None:
        if _wait_for_steps(second / "metrics.jsonl", 3, until=time.monotonic() + 60):
            os.kill(os.getpid(), signal.SIGTERM)

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    code, out, err = call(words, capsys)
    interrupter.join()
    assert (code, out) == (143, ""), err
    assert re.search(r"margin=0\.5/seed-0 \| train: goes on after step \d+", err)
    assert "→ the same command goes on from there" in err
    assert [run.state for run in runs_of(root)] == ["done", "stopped"]
    code, _, err = call(words, capsys)
    assert code == 0, err
    assert "margin=0.5/seed-0 |" not in err
    assert "margin=1/seed-0 | train: goes on after step" in err
    for folder in (first, second):
        assert [row["step"] for row in rows_of(folder / "metrics.jsonl")] == list(range(1, 17))


@pytest.mark.slow
def test_workers_of_a_killed_sweep_stop_and_the_next_one_goes_on(tmp_path: Path) -> None:
    """SIGKILL to the sweep alone: its workers write checkpoints by themselves, and the same command waits for them."""
    root = tmp_path / "sweep"
    words = ["sweep", *LONG, "--grid", "margin=0.5,1", "--out", str(root), "--workers", "2", "--quiet"]
    environment = os.environ | {"TRIMTAB_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "trimtab.cli", *words]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment) as process:
        assert _wait_for_steps(root / "points/margin=0.5/seed-0/metrics.jsonl", 3, until=time.monotonic() + 120)
        process.kill()
    again = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert again.returncode == 0, again.stderr
    assert re.search(r"margin=0\.5/seed-0 \| train: goes on after step \d+", again.stderr)
    assert tree_of(root / "sweep.json")["states"] == {"done": 2}
    for run in runs_of(root):
        assert [row["step"] for row in rows_of(Path(run.folder) / "metrics.jsonl")] == list(range(1, 17))


@pytest.mark.slow
def test_two_workers_share_the_runs(tmp_path: Path) -> None:
    words = ["sweep", *SMALL, "--grid", "margin=0.5,1", "--grid", "beta=0.1,3", "--out", str(tmp_path / "sweep")]
    environment = os.environ | {"TRIMTAB_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "trimtab.cli", *words, "--workers", "2", "--quiet"]
    process = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert process.returncode == 0, process.stderr
    tree = tree_of(tmp_path / "sweep" / "sweep.json")
    assert tree["states"] == {"done": 4}
    assert ["reference" in p["runs"][0]["computed"] for p in tree["points"]] == [True, False, False, False]
