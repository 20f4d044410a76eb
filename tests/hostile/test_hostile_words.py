"""Flags, configuration files and names that somebody wrote to do harm, or in haste."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hostile_calls import harmless, nothing_new, put, refused
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimtab import config as configuration

KEYS = sorted(configuration.keys())
DEEP = 100_000
FUZZ = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
LONG_FUZZ = settings(max_examples=3000, deadline=None, suppress_health_check=list(HealthCheck))

TEXTS = st.one_of(
    st.text(max_size=40),
    st.sampled_from(["", "..", "../../x", "/", "/etc/passwd", "a" * 300, "\x00", "\x1b[31m", "nan", "1e999", "-1", "~",
                     "windtunnel", "on", "off", "none", "file:///etc/passwd", "http://u:p@h/v1", "\ud800",
                     "\u202egpj"]),
)  # fmt: skip
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=8,
)
NAMES = st.one_of(st.sampled_from(KEYS), st.sampled_from([key.partition(".")[0] for key in KEYS]), TEXTS)
COMMANDS = st.sampled_from(["plan", "run", "report", "judge", "generate", "train", "prepare", "reference", "sweep"])
# what no word of a fuzzer may start: a run that works. An unknown word as the last one stops every command.
STOP = ("--no-such-key", "1")


def nested(trees: dict[str, object]) -> dict[str, object]:
    """Dotted names become sections."""
    laid: dict[str, object] = {}
    for name, value in trees.items():
        section, _, key = name.partition(".")
        held = laid.setdefault(section, {}) if key else laid
        if isinstance(held, dict):
            held[key or section] = value
    return laid


def a_command_line(command: str, words: list[tuple[str, str]]) -> None:
    harmless(command, *[part for name, value in words for part in (f"--{name}", value)], *STOP)


@FUZZ
@given(COMMANDS, st.lists(st.tuples(NAMES, TEXTS), max_size=5))
def test_flags(command: str, words: list[tuple[str, str]]) -> None:
    a_command_line(command, words)


@pytest.mark.slow
@LONG_FUZZ
@given(COMMANDS, st.lists(st.tuples(NAMES, TEXTS), max_size=5))
def test_flags_at_length(command: str, words: list[tuple[str, str]]) -> None:
    a_command_line(command, words)


def a_file(suffix: str, content: str | bytes) -> None:
    with tempfile.TemporaryDirectory() as made:
        path = put(Path(made) / f"config{suffix}", content)
        with nothing_new(Path(made)):
            harmless("plan", path, "--model", Path(made) / "no-model")
            harmless("run", path, *STOP)


@FUZZ
@given(st.sampled_from([".toml", ".yaml", ".json"]), st.one_of(st.text(max_size=200), st.binary(max_size=200)))
def test_files_of_noise(suffix: str, content: str | bytes) -> None:
    a_file(suffix, content)


@FUZZ
@given(st.sampled_from([".yaml", ".json"]), st.one_of(VALUES, st.dictionaries(NAMES, VALUES, max_size=5).map(nested)))
def test_files_of_other_trees(suffix: str, tree: object) -> None:
    a_file(suffix, json.dumps(tree))


@pytest.mark.slow
@LONG_FUZZ
@given(st.sampled_from([".yaml", ".json"]), st.one_of(VALUES, st.dictionaries(NAMES, VALUES, max_size=5).map(nested)))
def test_files_of_other_trees_at_length(suffix: str, tree: object) -> None:
    a_file(suffix, json.dumps(tree))


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".json", "[" * DEEP),
        (".json", '{"a":' * DEEP),
        (".json", '{"seed": ' + "9" * 5000 + "}"),
        (".json", b"\xff\xfe{}"),
        (".json", "[]"),
        (".json", '{"model": {"name": NaN}}'),
        (".toml", "a = " + "[" * DEEP),
        (".toml", "seed = " + "9" * 5000),
        (".toml", "a" + ".a" * DEEP + " = 1"),
        (".toml", "[model]\nname = 1979-05-27T07:32:00Z\n"),
        (".yaml", "[" * DEEP),
        (".yaml", BOMB),
        (".yaml", BOMB + "model: *i\n"),
        (".yaml", "&a [*a]"),
        (".yaml", "model: &a {name: *a}"),
        (".yaml", "1: 2\n"),
        (".yaml", "? [a, b]\n: 1\n"),
        (".yaml", "model: {1: 2}\n"),
        (".yaml", "model: !!python/object/apply:os.system ['touch owned']\n"),
        (".yaml", "model: !!python/name:os.system\n"),
        (".yaml", "model: !!timestamp 2026-99-99\n"),
        (".yaml", "model: !!binary '///'\ndata: x\n"),
        (".yaml", "--- 1\n--- 2\n"),
        (".yaml", "seed: 0x" + "f" * 9000),
        (".txt", "model = 1"),
    ],
    ids=range(25),
)
def test_files_that_were_made_to_harm(suffix: str, content: str | bytes, tmp_path: Path) -> None:
    path = put(tmp_path / f"config{suffix}", content)
    with nothing_new(tmp_path):
        refused("plan", path)
        refused("run", path, *STOP)


@pytest.mark.parametrize("name", ["a" * 5000, "x" * 300 + ".toml", "a\x00b.toml", "/dev/null/x.toml", "~nobody/x.toml"])
@pytest.mark.parametrize("command", ["plan", "report", "audit", "calibrate", "chat", "export", "winrate", "judge"])
def test_names_that_are_no_path(command: str, name: str) -> None:
    refused(command, name)


@pytest.mark.parametrize("name", ["a" * 5000, "a\x00b", "/dev/null/x", "\ud800", "http://127.0.0.1:9/x"])
def test_names_that_are_no_path_in_a_pair(name: str) -> None:
    refused("compare", name, name)
    refused("arena", name, name, "--no-browser")


def test_a_file_without_permission_a_folder_and_a_device(tmp_path: Path) -> None:
    (tmp_path / "config.toml").mkdir()
    refused("plan", tmp_path / "config.toml")
    (tmp_path / "loop.toml").symlink_to(tmp_path / "loop.toml")
    refused("plan", tmp_path / "loop.toml")
    refused("plan", "/dev/zero")
    refused("plan", "/dev/stdin")


@pytest.mark.parametrize(
    "key", ["model", "data", "benchmark.name", "benchmark.dir", "judge.name", "generate.served_as"]
)
@pytest.mark.parametrize("value", ["\x00", "a" * 5000, "../" * 40 + "x", "\x1b]0;owned\x07", "\u202egpj.exe", "\ud800"])
def test_values_that_are_no_name(key: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = {"model": "no/such/model", "data": "no.jsonl", "benchmark.name": "no.json"} | {key: value}
    refused("plan", *[part for name, text in words.items() for part in (f"--{name}", text)])
    assert not list(tmp_path.iterdir())
