"""What people write: three file formats, flags that may be short, and the nearest right word for a wrong one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trimtab import config
from trimtab.config import files, flags
from trimtab.errors import ConfigError


def test_flags_are_laid_on_the_file_and_leave_its_other_keys_alone(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('model = "m"\n[data]\nsource = "d"\nlimit = 7\n[train]\nepochs = 3\n')
    words, tree = flags.parse(["run.toml", "--train.batch-pairs", "4", "--learning_rate=2e-4", "--data", "e"])
    resolved = config.resolve(config.merge(files.read_file(path), tree))
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
    assert config.resolve(files.read_file(path)) == config.resolve(tree)


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
        flags.parse(words)
    assert near in caught.value.remedy


def test_a_flag_without_its_value_or_given_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="no value"):
        flags.parse(["--data.limit", "--seed", "1"])
    with pytest.raises(ConfigError, match="twice"):
        flags.parse(["--seed", "1", "--seed", "2"])


def test_a_yes_or_no_key_needs_no_value_and_swallows_no_word() -> None:
    assert flags.parse(["--offline", "run.toml"]) == (["run.toml"], {"offline": True})
    assert flags.parse(["--adapter.dora", "false"])[1] == {"adapter": {"dora": False}}


@pytest.mark.parametrize(
    ("words", "dotted"),
    [
        (["--lr", "1e-4"], "train.learning_rate"),
        (["--train.lr", "1e-4"], "train.learning_rate"),
        (["--batch-size", "8"], "train.batch_pairs"),
        (["--lora_alpha", "8"], "adapter.alpha"),
        (["--adapter.r", "8"], "adapter.rank"),
    ],
)
def test_what_other_trainers_call_a_key_is_known(words: list[str], dotted: str) -> None:
    with pytest.raises(ConfigError) as caught:
        flags.parse(words)
    assert repr(dotted) in caught.value.remedy
    with pytest.raises(ConfigError) as caught:
        config.resolve({"model": "m", "data": "d", "train": {"lr": 1}})
    assert "'train.learning_rate'" in caught.value.remedy


def test_a_last_part_that_two_keys_share_wants_its_section() -> None:
    with pytest.raises(ConfigError, match=r"data\.limit or benchmark\.limit"):
        flags.parse(["--limit", "3"])


@pytest.mark.parametrize("key", sorted(config.keys()))
def test_every_key_is_a_flag_in_all_its_forms(key: str) -> None:
    """Kebab and snake case, with its value as a word of its own or behind an equals sign."""
    kind = config.field_of(key).annotation
    value = "true" if kind in (bool, bool | None) else "a=b" if key == "data.columns" else "-3"
    section, _, last = key.rpartition(".")
    forms = {key, key.replace("_", "-"), config.flag_name(key)}
    trees = [
        flags.parse(words)[1]
        for form in forms
        for words in ([f"--{form}", value], [f"--{form}={value}"], *([[f"--{form}"]] if value == "true" else []))
    ]
    inner = {"a": "b"} if key == "data.columns" else True if value == "true" else value
    assert trees == [{section: {last: inner}} if section else {last: inner}] * len(trees)


def test_columns_are_read_as_a_mapping() -> None:
    _, tree = flags.parse(["--columns", "prompt=q,chosen=a,rejected=b"])
    assert tree["data"]["columns"] == {"prompt": "q", "chosen": "a", "rejected": "b"}
    with pytest.raises(ConfigError, match="columns"):
        flags.parse(["--columns", "prompt"])


def test_a_key_of_a_section_does_not_turn_the_embedded_world_off() -> None:
    assert not files.names_an_input(flags.parse(["--data.holdout", "0.1", "--model.revision", "x"])[1])
    assert files.names_an_input({"data": "pairs.jsonl"})
    assert files.names_an_input(flags.parse(["--model", "m"])[1])


@pytest.mark.parametrize("text", ["q_proj", "q_proj,v_proj", "q_proj, v_proj"])
def test_targets_are_names_and_a_pattern_stays_one(text: str) -> None:
    """PEFT takes a text as a regular expression of whole paths, which no name alone matches."""
    lora = {"model": "m", "data": "d", "adapter": {"kind": "lora"}}
    tree = flags.parse(["--adapter.targets", text])[1]
    assert config.resolve(config.merge(lora, tree)).adapter.targets == tuple(text.replace(" ", "").split(","))
    tree = flags.parse(["--adapter.targets", r".*\.(q|v)_proj"])[1]
    assert config.resolve(config.merge(lora, tree)).adapter.targets == r".*\.(q|v)_proj"
    assert config.resolve(lora).adapter.targets == "all-linear"


YAML = """
model: m
data: d
objective: {name: dpo, beta: 1e-1}
train: {learning_rate: 1.e-5, weight_decay: .1}
engine: {screening: off, packed: on, shrinking: off}
benchmark: {unaligned: off}
offline: no
out: 2026-01-01
"""


def test_yaml_says_what_people_mean_by_it(tmp_path: Path) -> None:
    """YAML 1.2's core schema (https://yaml.org/spec/1.2.2/#103-core-schema): only true and false are booleans."""
    path = tmp_path / "c.yaml"
    path.write_text(YAML)
    resolved = config.resolve(files.read_file(path))
    assert (resolved.engine.screening, resolved.engine.packed, resolved.engine.shrinking) == ("off", "on", "off")
    assert (resolved.objective.beta, resolved.train.learning_rate, resolved.train.weight_decay) == (0.1, 1e-5, 0.1)
    assert (resolved.benchmark.unaligned, resolved.offline, resolved.out) == ("off", False, "2026-01-01")


def test_lists_in_yaml_are_as_written(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("a: [on, off]\nb: [1e-5, 1e-4, 3, .5]\nc: [yes, n, ~, true]\nd: 0777\ne: 1:30\n")
    assert files.read_file(path) == {
        "a": ["on", "off"], "b": [1e-5, 1e-4, 3, 0.5], "c": ["yes", "n", None, True], "d": "0777", "e": "1:30"
    }  # fmt: skip


Y1 = Path(__file__).resolve().parents[2] / "shared" / "cases" / "eval" / "Y1_yaml"


@pytest.mark.needs_shared
@pytest.mark.skipif(not Y1.is_dir(), reason="needs ../shared/cases")
def test_the_yaml_of_the_shared_cases_is_read_as_it_is_written() -> None:
    first, second, switch = (config.resolve(files.read_file(Y1 / f"{name}.yaml")) for name in ("r", "r2", "switch"))
    assert (first.objective.beta, first.train.learning_rate) == (0.1, 1e-5)
    assert (second.objective.beta, second.train.learning_rate, second.engine.screening) == (0.1, 1e-5, "off")
    assert switch.engine.shrinking == "off"
    assert files.read_file(Y1 / "sweep.yaml")["sweep"]["grid"] == {
        "train.learning_rate": [1e-5, 1e-4], "objective.beta": [0.1, 0.3]
    }  # fmt: skip
    assert files.read_file(Y1 / "sweep_switch.yaml")["sweep"]["grid"] == {"engine.screening": ["on", "off"]}


@pytest.mark.parametrize("switch", ["packed", "screening", "shrinking"])
def test_true_and_false_are_on_and_off(switch: str) -> None:
    tree = {"model": "m", "data": "d", "engine": {switch: False}}
    assert getattr(config.resolve(tree).engine, switch) == "off"


@pytest.mark.parametrize("name", ["pairs.csv", "pairs.jsonl", "pairs.jsonl.gz", "pairs.parquet", "pairs.json"])
def test_a_file_of_pairs_is_no_configuration(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("[]")
    with pytest.raises(ConfigError) as caught:
        files.read_file(path)
    assert f"--data {path}" in caught.value.remedy


def test_the_opposite_of_a_flag_is_said_as_its_value() -> None:
    with pytest.raises(ConfigError) as caught:
        flags.parse(["--no-offline"])
    assert caught.value.remedy == "write --offline false"
    with pytest.raises(ConfigError) as caught:  # no yes or no
        flags.parse(["--no-benchmark"])
    assert "false" not in caught.value.remedy


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--adapter", "qlora"], "write --adapter lora --adapter.quantize nf4"),
        (["--adapter", "DoRA"], "write --adapter lora --adapter.dora"),
        (["--train.epochs", "two"], "train.epochs = 'two': it has to be a valid number"),
        (["--train.epochs", "-1"], "train.epochs = '-1': it has to be greater than 0"),
    ],
)
def test_wrong_values_are_answered_in_plain_words(words: list[str], answer: str) -> None:
    tree = flags.parse([*words, "--model", "m", "--data", "d"])[1]
    with pytest.raises(ConfigError) as caught:
        config.resolve(tree)
    assert caught.value.message.endswith(answer)
