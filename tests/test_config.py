"""Configuration: strict, frozen, and every mistake answered with the nearest right word."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from trimtab import config, objectives
from trimtab.errors import ConfigError

MINIMAL = {"model": "m", "data": "d.jsonl"}
SOURCES = Path(config.__file__).parent


def resolve(**over: object) -> config.Config:
    return config.resolve(config.merge(MINIMAL, over))


def test_bare_words_set_the_main_field_of_a_section() -> None:
    resolved = resolve(objective="dpo", adapter="lora", benchmark="windtunnel", judge="oracle")
    assert resolved.model.name == "m"
    assert resolved.data.source == "d.jsonl"
    assert (resolved.objective.name, resolved.adapter.kind) == ("dpo", "lora")


def test_flags_are_laid_on_the_file_and_leave_its_other_keys_alone(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('model = "m"\n[data]\nsource = "d"\nlimit = 7\n[train]\nepochs = 3\n')
    words, flags = config.read_flags(["run.toml", "--train.batch-pairs", "4", "--learning_rate=2e-4", "--data", "e"])
    resolved = config.resolve(config.merge(config.read_file(path), flags))
    assert words == ["run.toml"]
    assert (resolved.data.source, resolved.data.limit) == ("e", 7)
    assert (resolved.train.epochs, resolved.train.batch_pairs, resolved.train.learning_rate) == (3.0, 4, 2e-4)


@pytest.mark.parametrize("suffix", [".toml", ".yaml", ".json"])
def test_the_three_file_formats_say_the_same(tmp_path: Path, suffix: str) -> None:
    tree = {"model": "m", "data": {"source": "d", "limit": 3}, "objective": {"name": "dpo", "beta": 0.2}}
    text = {
        ".json": json.dumps(tree),
        ".yaml": "model: m\ndata: {source: d, limit: 3}\nobjective:\n  name: dpo\n  beta: 0.2\n",
        ".toml": 'model = "m"\n[data]\nsource = "d"\nlimit = 3\n[objective]\nname = "dpo"\nbeta = 0.2\n',
    }[suffix]
    path = tmp_path / f"c{suffix}"
    path.write_text(text)
    assert config.resolve(config.read_file(path)) == config.resolve(tree)


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (["--data.limti", "3"], "data.limit"),
        (["--train.batch-pair", "3"], "train.batch_pairs"),
        (["--lerning-rate", "3"], "learning_rate"),
        (["--objektive", "dpo"], "objective"),
        (["--qqqqq", "3"], "trimtab keys"),
    ],
)
def test_an_unknown_flag_names_the_nearest_known_key(words: list[str], near: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.read_flags(words)
    assert near in caught.value.remedy


@pytest.mark.parametrize(
    ("tree", "near"),
    [({"trian": {"epochs": 1}}, "train"), ({"train": {"epoch": 1}}, "train.epochs"), ({"sed": 1}, "seed")],
)
def test_an_unknown_key_in_a_file_names_the_nearest_known_key(tree: dict[str, object], near: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.resolve(config.merge(MINIMAL, tree))
    assert repr(near) in caught.value.remedy


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ({"train": {"epochs": 0}}, "train.epochs"),
        ({"train": {"learning_rate": float("nan")}}, "train.learning_rate"),
        ({"data": {"holdout": 1.0}}, "data.holdout"),
        ({"engine": {"dtype": "float16"}}, "engine.dtype"),
        ({"engine": {"shrinking": "on"}}, "not built yet"),
        ({"objective": {"name": "dpo", "margin": 1.0}}, "margin"),
        ({"objective": {"name": "dpoo"}}, "dpo"),
        ({"objective": {"name": "margin_sigmoid", "delta": 0.7}}, "delta"),
        ({"judge": "oracle"}, "windtunnel"),
        ({"judge": "gpt-4"}, "judge.name"),
        ({"adapter": {"rank": 8}}, "adapter.rank"),
        ({"windtunnel": {"length_bias": 0.3}}, "windtunnel.length_bias"),
        ({"data": {"source": "windtunnel", "columns": {"prompt": "p"}}}, "data.columns"),
        ({"train": 3}, "section"),
    ],
)
def test_a_value_that_cannot_be_run_is_refused_by_name(over: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(**over)
    assert said in str(caught.value)
    assert caught.value.remedy


def test_missing_required_keys_are_asked_for_by_their_flag() -> None:
    with pytest.raises(ConfigError, match="data") as caught:
        config.resolve({"model": "m"})
    assert "--data" in caught.value.remedy


def test_a_flag_without_its_value_or_given_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="no value"):
        config.read_flags(["--data.limit", "--seed", "1"])
    with pytest.raises(ConfigError, match="twice"):
        config.read_flags(["--seed", "1", "--seed", "2"])


def test_a_yes_or_no_key_needs_no_value_and_swallows_no_word() -> None:
    assert config.read_flags(["--offline", "run.toml"]) == (["run.toml"], {"offline": "true"})
    assert config.read_flags(["--adapter.dora", "false"])[1] == {"adapter": {"dora": "false"}}


def test_columns_are_read_as_a_mapping() -> None:
    _, tree = config.read_flags(["--columns", "prompt=q,chosen=a,rejected=b"])
    assert tree["data"]["columns"] == {"prompt": "q", "chosen": "a", "rejected": "b"}
    with pytest.raises(ConfigError, match="columns"):
        config.read_flags(["--columns", "prompt"])


def test_the_default_folder_is_named_by_the_configuration() -> None:
    one, same, other = resolve(), resolve(), resolve(seed=1)
    assert one.out == same.out != other.out
    assert one.out.startswith("runs/m-apo_hinge_zero-")
    assert resolve(out="here").out == "here"


def test_the_objective_section_has_a_key_for_every_parameter_and_no_other() -> None:
    fields = set(config.ObjectiveSection.model_fields) - {"name"}
    assert fields == {*objectives.PARAMETERS, *objectives.MODIFIERS}


def test_a_configuration_survives_its_json() -> None:
    resolved = resolve(objective={"name": "dpo", "beta": 0.3}, adapter={"kind": "lora", "targets": ["q_proj"]})
    assert config.resolve(config.to_json(resolved)) == resolved


def test_every_key_is_read_somewhere() -> None:
    """A field that no code outside the configuration names is a dead knob."""
    named: set[str] = set()
    for path in SOURCES.rglob("*.py"):
        if path.name != "config.py":
            named |= {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    through_parameters = {*objectives.PARAMETERS, *objectives.MODIFIERS, "shrinking"}
    read = named | through_parameters
    dead = [key for key in config.keys() if key.rpartition(".")[2] not in read]  # noqa: SIM118  # a function, no mapping
    assert dead == []


def test_a_key_of_a_section_does_not_turn_the_embedded_world_off() -> None:
    assert not config.names_an_input(config.read_flags(["--data.holdout", "0.1", "--model.revision", "x"])[1])
    assert config.names_an_input({"data": "pairs.jsonl"})
    assert config.names_an_input(config.read_flags(["--model", "m"])[1])
