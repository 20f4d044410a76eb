"""What people write: three file formats, flags that may be short, and the nearest right word for a wrong one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trimtab import config
from trimtab.config import parsing as written
from trimtab.errors import ConfigError


def test_flags_are_laid_on_the_file_and_leave_its_other_keys_alone(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('model = "m"\n[data]\nsource = "d"\nlimit = 7\n[train]\nepochs = 3\n')
    words, flags = written.read_flags(["run.toml", "--train.batch-pairs", "4", "--learning_rate=2e-4", "--data", "e"])
    resolved = config.resolve(config.merge(written.read_file(path), flags))
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
    assert config.resolve(written.read_file(path)) == config.resolve(tree)


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
        written.read_flags(words)
    assert near in caught.value.remedy


def test_a_flag_without_its_value_or_given_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="no value"):
        written.read_flags(["--data.limit", "--seed", "1"])
    with pytest.raises(ConfigError, match="twice"):
        written.read_flags(["--seed", "1", "--seed", "2"])


def test_a_yes_or_no_key_needs_no_value_and_swallows_no_word() -> None:
    assert written.read_flags(["--offline", "run.toml"]) == (["run.toml"], {"offline": "true"})
    assert written.read_flags(["--adapter.dora", "false"])[1] == {"adapter": {"dora": "false"}}


def test_columns_are_read_as_a_mapping() -> None:
    _, tree = written.read_flags(["--columns", "prompt=q,chosen=a,rejected=b"])
    assert tree["data"]["columns"] == {"prompt": "q", "chosen": "a", "rejected": "b"}
    with pytest.raises(ConfigError, match="columns"):
        written.read_flags(["--columns", "prompt"])


def test_a_key_of_a_section_does_not_turn_the_embedded_world_off() -> None:
    assert not written.names_an_input(written.read_flags(["--data.holdout", "0.1", "--model.revision", "x"])[1])
    assert written.names_an_input({"data": "pairs.jsonl"})
    assert written.names_an_input(written.read_flags(["--model", "m"])[1])
