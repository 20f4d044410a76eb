"""The table `[sweep]` of a file: points, grid, and what the command line may change about them."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from trimtab import config
from trimtab.cli.configuration import base_tree
from trimtab.config import files
from trimtab.errors import ConfigError
from trimtab.studies.sweep import command
from trimtab.studies.sweep.grid import Axis, read_axis
from trimtab.studies.sweep.sweep_file import text_of

FILE = """
seeds = 2
[sweep.grid]
windtunnel.length_bias = [0, 0.5]
[[sweep.points]]
name = "hinge m/β"
objective.margin = 1
train.learning_rate = 0.0005
[[sweep.points]]
"objective.name" = "dpo"
beta = 0.1
"""


def tree(text: str) -> dict[str, Any]:
    return files.on_recipe(tomllib.loads(text), {})


def test_points_are_multiplied_with_the_grid() -> None:
    sweep = command.expand(tree(FILE), {})
    assert [point.name for point in sweep.points] == [
        "hinge-m-,length-bias=0",
        "hinge-m-,length-bias=0.5",
        "name=dpo,beta=0.1,length-bias=0",
        "name=dpo,beta=0.1,length-bias=0.5",
    ]
    assert sweep.axes[0] == Axis("point", ("hinge m/β", "name=dpo,beta=0.1"))
    first, last = sweep.points[0], sweep.points[-1]
    assert first.values == {"point": "hinge m/β", "windtunnel.length_bias": 0.0}
    assert first.settings == {"objective.margin": 1.0, "train.learning_rate": 5e-4, "windtunnel.length_bias": 0.0}
    assert last.settings == {"objective.name": "dpo", "objective.beta": 0.1, "windtunnel.length_bias": 0.5}
    assert (first.config.objective.name, first.config.objective.beta) == (
        "apo_hinge_zero",
        0.3,
    )  # the embedded recipe's
    assert (last.config.objective.name, last.config.train.learning_rate) == ("dpo", 5e-4)
    assert sweep.seeds == (0, 1)
    assert not {"name", "beta", "margin"} & set(sweep.base["objective"])


def test_a_file_and_the_same_flags_are_one_sweep() -> None:
    """So that a sweep begun with flags goes on with a file: the same folders, the same base."""
    text = "seeds = 3\n[sweep.grid]\n'train.learning-rate' = [2e-4, 1e-3]\nobjective.margin = [0.5, 1.0, 1000]\n"
    axes = [read_axis("train.learning-rate=2e-4,1e-3"), read_axis("margin=0.5,1,1000")]
    by_file, by_flags = command.expand(tree(text), {}), command.expand(tree("seeds = 3"), {}, axes=axes)
    assert by_file == by_flags
    assert by_file.points[0].name == "learning-rate=2e-4,margin=0.5"


def test_the_command_line_replaces_an_axis_or_adds_one() -> None:
    axes = [read_axis("windtunnel.length-bias=1"), read_axis("train.epochs=1,2")]
    sweep = command.expand(tree(FILE), {"seeds": "4"}, axes=axes)
    assert [axis.key for axis in sweep.axes] == ["point", "windtunnel.length_bias", "train.epochs"]
    assert sweep.axes[1].values == ("1",)
    assert (len(sweep.points), len(sweep.seeds)) == (4, 4)


@pytest.mark.parametrize(
    ("value", "text"),
    [(5e-4, "5e-4"), (0.00025, "2.5e-4"), (0.05, "0.05"), (1.0, "1"), (1000, "1000"), (0.0, "0"), (-1e-5, "-1e-5"),
     (1e22, "1e22"), (True, "true"), ("dpo", "dpo")],
)  # fmt: skip
def test_values_are_written_as_people_do(value: Any, text: str) -> None:
    assert text_of(value, "here") == text
    if isinstance(value, float):
        assert float(text) == value


@pytest.mark.parametrize(
    ("text", "flags", "message"),
    [
        ("[sweep]\nsteps = 3", {}, "sweep.steps"),
        ("sweep = 3", {}, "is a section"),
        ("[sweep]\ngrid = [1]", {}, "no table of keys"),
        ("[sweep.grid]\nobjective.margin = 1", {}, "no list of values"),
        ("[sweep.grid]\nobjective.margin = []", {}, "no list of values"),
        ("[sweep.grid]\nobjective.margin = [[1]]", {}, "no single value"),
        ("[sweep.grid]\nobjective.margn = [1]", {}, "objective.margin"),
        ("[sweep.grid]\nobjective.margin = [1]\n'margin' = [2]", {}, "given twice"),
        ("[sweep.grid]\nseed = [1, 2]", {}, "--seeds K"),
        ("[sweep]\npoints = 3", {}, "no list of tables"),
        ("[sweep]\npoints = [3]", {}, "point 1 of the sweep"),
        ("[[sweep.points]]\nname = 'a'", {}, "sets no key"),
        ("[[sweep.points]]\nname = ''\nobjective.margin = 1", {}, "has the name"),
        ("[[sweep.points]]\nout = 'x'", {}, "no axis"),
        ("[[sweep.points]]\nobjective.margin = 1\n[[sweep.points]]\nobjective.margin = 1", {}, "are called"),
        ("[[sweep.points]]\nname='a'\nmargin=1\n[[sweep.points]]\nname='b'\nmargin=1.0", {}, "the same"),
        ("[[sweep.points]]\nmargin = 1\n[sweep.grid]\nobjective.margin = [2]", {}, "in the grid and in a point"),
        ("[sweep.grid]\nobjective.margin = [1, 2]", {"objective": {"margin": "3"}}, "--grid objective.margin"),
        ("[[sweep.points]]\nobjective.name = 'dpo'", {"objective": "aot"}, "what the sweep varies"),
    ],
)  # fmt: skip
def test_what_is_no_sweep_is_refused(text: str, flags: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        command.expand(tree(text), flags)
    assert message in str(error.value)


def test_a_run_refuses_the_file_of_a_sweep_by_name() -> None:
    with pytest.raises(ConfigError, match=r"\[sweep\]") as error:
        config.resolve(tree(FILE))
    assert "trimtab sweep" in error.value.remedy


def test_only_a_file_without_any_input_stands_on_the_embedded_recipe(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("[train]\nepochs = 7\n", encoding="utf-8")
    resolved = config.resolve(base_tree(str(path), {}))
    assert (resolved.data.source, resolved.train.epochs, resolved.train.learning_rate) == ("windtunnel", 7, 5e-4)
    assert base_tree(str(path), {"data": {"source": "x.jsonl"}}) == {"train": {"epochs": 7}}
    path.write_text("data = 'x.jsonl'\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="model"):
        config.resolve(base_tree(str(path), {}))
