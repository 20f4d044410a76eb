"""Every recipe: its head names command, hardware, time and twin; it resolves offline; twins really run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from trial_runs import call, tree_of
from trimtab import config
from trimtab.cli.configuration import base_tree
from trimtab.config import files
from trimtab.engine import memory
from trimtab.studies.sweep import command
from trimtab.studies.sweep.grid import Sweep

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes"
PAPER = sorted((RECIPES / "paper-2508.08466").glob("*.toml"))
TWINS = sorted((RECIPES / "windtunnel").glob("*.toml"))
# questions that only a world with a known truth can answer
ON_THEIR_OWN = {"dead-zone", "dead-zone-sigmoid", "tuning", "noise", "regimes"}


def config_tree(path: Path) -> dict[str, Any]:
    return base_tree(str(path), {})


def sweep_of(path: Path) -> Sweep:
    return command.expand(config_tree(path), {})


def head(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert re.fullmatch(r"# \S.*[.?]", lines[0]), path
    matches = [re.fullmatch(r"# (\w+):\s+(.*)", line) for line in lines[1:5]]
    return {match[1]: match[2] for match in matches if match}


@pytest.mark.parametrize("path", [*PAPER, *TWINS], ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_head_names_command_hardware_time_and_twin(path: Path) -> None:
    notes = head(path)
    assert list(notes) == ["command", "hardware", "time", "twin"]
    word, verb, file, *_ = shlex.split(notes["command"])
    assert (word, ROOT / file) == ("trimtab", path)
    assert verb == ("sweep" if "sweep" in files.read_file(path) else "run")
    assert re.match(r"about \d+ (min|h|days)", notes["time"])
    if path.stem in ON_THEIR_OWN and path in TWINS:
        assert notes["twin"].startswith("none")
        return
    twin = ROOT / notes["twin"]
    assert twin.is_file()
    assert twin.parent != path.parent
    assert ROOT / head(twin)["twin"] == path
    assert f"({path.parent.name}/{path.name})" in (RECIPES / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", [*PAPER, *TWINS], ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_recipe_resolves_offline(path: Path) -> None:
    words = shlex.split(head(path)["command"])[3:]
    assert words in ([], ["--workers", "2"])
    if "sweep" in files.read_file(path):
        sweep = sweep_of(path)
        runs = len(sweep.points) * len(sweep.seeds)
        assert sweep.out.endswith(path.stem)
        n_runs = re.search(r"(\d+) runs", head(path)["time"])
        assert n_runs is None or int(n_runs[1]) == runs
        configs = [point.config for point in sweep.points]
    else:
        configs = [config.resolve(config_tree(path))]
    if path in TWINS:
        assert all(single.data.source == single.benchmark.name == "windtunnel" for single in configs)
        assert all(single.select.by == "last" for single in configs)


def test_the_papers_methods_are_the_same_alone_and_in_the_sweep() -> None:
    sweep = sweep_of(RECIPES / "paper-2508.08466" / "all.toml")
    assert [point.values["point"] for point in sweep.points] == [
        "dpo", "dpo_hinge", "apo_zero", "aot", "exo_pair", "margin_sigmoid", "apo_hinge_zero", "apo_hinge_softplus",
    ]  # fmt: skip
    for point in sweep.points:
        alone = config.resolve(config_tree(RECIPES / "paper-2508.08466" / f"{point.values['point']}.toml"))
        assert alone.model_copy(update={"out": ""}) == point.config.model_copy(update={"out": ""})
        assert (alone.objective.name, alone.train.epochs, alone.train.batch_pairs) == (point.values["point"], 3, 8)
        assert (alone.data.max_prompt_tokens, alone.data.max_response_tokens) == (256, 768)
        assert (alone.generate.temperature, alone.generate.top_p, alone.generate.repetition_penalty) == (0.7, 0.9, 1.1)


def test_the_sweeps_behind_the_findings_are_what_they_are_called() -> None:
    def axes(name: str) -> dict[str, tuple[str, ...]]:
        return {axis.key: axis.values for axis in sweep_of(RECIPES / "windtunnel" / f"{name}.toml").axes}

    biases = ("0", "0.25", "0.5", "1")
    assert axes("dead-zone") == {"windtunnel.length_bias": biases, "objective.margin": ("0.5", "1", "2", "1000")}
    assert axes("dead-zone-sigmoid") == {"windtunnel.length_bias": biases, "objective.delta": ("0", "0.4")}
    assert list(axes("tuning")) == ["objective.name", "train.learning_rate", "objective.beta"]
    assert axes("tuning")["train.learning_rate"] == ("2e-4", "5e-4", "1e-3")
    tuning, ranking = (sweep_of(RECIPES / "windtunnel" / f"{name}.toml") for name in ("tuning", "ranking"))
    assert tuning.base["windtunnel"]["seed"] == 1  # tuned in another world than the ranking's
    assert ranking.base["windtunnel"]["seed"] == 0
    assert {point.values["objective.name"] for point in tuning.points} == {p.values["point"] for p in ranking.points}
    candidates = {tuple(point.settings[key] for key in ("objective.name", *_TUNED)) for point in tuning.points}
    assert {tuple(point.settings[key] for key in ("objective.name", *_TUNED)) for point in ranking.points} <= candidates
    regimes = sweep_of(RECIPES / "windtunnel" / "regimes.toml")
    assert len(regimes.points) == 3 * 2 * 2 * 2


_TUNED = ("train.learning_rate", "objective.beta")
SMALL = ("--windtunnel.pairs", "16", "--windtunnel.prompts", "8", "--batch-pairs", "8", "--quiet")


def test_a_twin_of_points_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path / "home"))
    words = ["sweep", RECIPES / "windtunnel" / "length-probe.toml", *SMALL, "--train.max-steps", "1", "--seeds", "1"]
    code, out, err = call([*words, "--out", tmp_path / "sweep"], capsys)
    assert code == 0, err
    assert "3 points with 1 seed each: 3 done" in out
    tree = tree_of(tmp_path / "sweep" / "sweep.json")
    assert tree["grid"] == {"point": ["hinge", "linear", "sigmoid"]}
    assert [point["settings"].get("objective.margin") for point in tree["points"]] == [1.0, 1000.0, None]
    assert tree["points"][2]["settings"] == {"objective.name": "dpo"}
    html = (tmp_path / "sweep" / "sweep.html").read_text(encoding="utf-8")
    assert "Table: what each point sets" in html
    assert (tmp_path / "sweep" / "points" / "sigmoid" / "seed-0" / "report.html").is_file()
    # another margin under the same name is another sweep
    changed = (
        (RECIPES / "windtunnel" / "length-probe.toml")
        .read_text(encoding="utf-8")
        .replace("margin = 1\n", "margin = 2\n")
    )
    (tmp_path / "changed.toml").write_text(changed, encoding="utf-8")
    code, _, err = call(["sweep", tmp_path / "changed.toml", *words[2:], "--out", tmp_path / "sweep"], capsys)
    assert code == 2
    assert "point 'hinge'" in err


def test_plan_counts_the_runs_of_a_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import json

    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(memory, "matmul_speed", lambda *_: 1e11)  # measured for each plan, and not twice alike
    path = RECIPES / "windtunnel" / "regimes.toml"
    code, out, err = call(["plan", path, *SMALL[:-1], "--seeds", "2", "--json"], capsys)
    assert code == 0, err
    tree = json.loads(out)
    assert (tree["kind"], tree["runs"], len(tree["points"])) == ("sweep", 48, 24)
    seconds = {point["name"]: point["predicted_training_seconds"] for point in tree["points"]}
    assert tree["predicted_training_seconds"] == pytest.approx(2 * sum(seconds.values()))
    short, long = (seconds[f"name=dpo,beta=0.3,learning-rate=5e-4,epochs={n}"] for n in (1, 3))
    assert long == pytest.approx(3 * short, rel=0.01)
    code, _, err = call(["run", path], capsys)
    assert code == 2
    assert "trimtab sweep" in err
