"""What people write, as a tree of keys: configuration files and flags. `config.resolve` makes the tree strict.

A flag may leave out its section where its last part names one key only; kebab and snake case are the same.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from trimtab.config import EMBEDDED_RECIPE, MAIN_FIELD, keys, merge, unknown_key
from trimtab.errors import ConfigError

# flags at the top level that belong to a section
SHORT = {
    "beta": "objective.beta",
    "margin": "objective.margin",
    "columns": "data.columns",
    "benchmark_dir": "benchmark.dir",
}


LARGEST_FILE = 1_000_000  # bytes
MOST_DOTS = 2_000  # in one line


def read_file(path: Path) -> dict[str, Any]:
    """The tree written in a TOML, YAML or JSON file."""
    if not path.is_file():
        raise ConfigError(f"no such configuration file: {path}", remedy="check the path, or see recipes/")
    if path.stat().st_size > LARGEST_FILE:
        raise ConfigError(
            f"{path} is larger than {LARGEST_FILE:,} bytes: no configuration is", remedy="name a configuration file"
        )
    try:
        tree = _parse(path)
    except RecursionError as error:
        raise ConfigError(f"{path} is nested too deeply", remedy="write sections and their keys, no deeper") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} does not parse: {error}", remedy="mend the syntax at that place") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} holds no table of keys", remedy="write sections such as [model] and [data]")
    for name, section in tree.items():  # YAML has keys of other kinds
        if odd := [key for key in (name, *(section if isinstance(section, dict) else ())) if not isinstance(key, str)]:
            raise ConfigError(f"{path}: {odd[0]!r} is no key", remedy="keys are words")
    return tree


def read_run(folder: Path, *, said: Mapping[str, Any]) -> dict[str, Any]:
    """The resolved configuration in a run folder, wherever the folder was moved. `said`: what the user says beside it.

    A folder may come from anybody: that its model's own code may run has to be said by the user each time.
    """
    tree = merge({}, read_file(folder / "config.json"))
    told = tree.get("model")
    trusts = isinstance(told, dict) and told.get("trust_remote_code") not in (None, False)
    if trusts and "trust_remote_code" not in merge({}, said).get("model", {}):
        raise ConfigError(
            f"{folder} wants the model's own code to be run, and a run folder's word is not enough for that",
            remedy="read that code; if you trust it, add --model.trust-remote-code true",
        )
    return tree | {"out": str(folder)}


def refuse_unnamed_servers(folder: Path, *, said: Mapping[str, Any]) -> None:
    """Raise ConfigError where a key would go to a server that a run folder alone names, and not the user.

    For commands that ask servers. This machine, OpenAI and $OPENAI_BASE_URL need no word of the user's.
    """
    if not os.environ.get("OPENAI_API_KEY"):
        return
    tree, told = merge({}, read_file(folder / "config.json")), merge({}, said)
    for path in ("base_url", "generate.base_url"):
        url, again = _at(tree, path), _at(told, path)
        if isinstance(url, str) and again is None and not _is_known(url):
            raise ConfigError(
                f"{folder} wants your OPENAI_API_KEY sent to {urlsplit(url).hostname}, and a run folder's word is not "
                "enough for that",
                remedy=f"if that server may have the key, add --{path.replace('_', '-')} {url}",
            )


def _at(tree: Mapping[str, Any], path: str) -> Any:
    value: Any = tree
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _is_known(url: str) -> bool:
    known = ("https://api.openai.com", os.environ.get("OPENAI_BASE_URL", ""))
    try:
        told = urlsplit(url)
        return told.hostname in ("localhost", "127.0.0.1", "::1") or any(
            (told.scheme, told.netloc) == urlsplit(one)[:2] for one in known
        )
    except ValueError:  # no address: `config.resolve` says so
        return True


def _parse(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    match path.suffix.lower():
        case ".toml":
            if max(map(str.count, text.split("\n"), repeat("."))) > MOST_DOTS:  # tomllib takes the square of it
                raise ValueError(f"a line holds more than {MOST_DOTS:,} dots")
            return tomllib.loads(text)
        case ".json":
            return json.loads(text)
        case ".yaml" | ".yml":
            import yaml

            try:
                return yaml.safe_load(text)
            except yaml.YAMLError as error:
                raise ValueError(error) from error
        case other:
            raise ConfigError(f"{path}: {other or 'no suffix'} is no configuration", remedy="use .toml, .yaml or .json")


def read_flags(tokens: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """The bare words, and `--data.limit 100 --learning-rate=3e-4 --offline` as a tree.

    Kebab and snake case are the same key. A yes-or-no key needs no value.
    """
    words: list[str] = []
    tree: dict[str, Any] = {}
    rest = list(tokens)
    while rest:
        token = rest.pop(0)
        if not token.startswith("--") or len(token) == 2:
            words.append(token)
            continue
        name, equals, value = token[2:].partition("=")
        dotted = full_name(name)
        if not equals:
            value = _value(dotted, rest)
        _place(tree, dotted, value)
    return words, tree


def _value(dotted: str, rest: list[str]) -> str:
    field = keys()[dotted].model_fields[dotted.rpartition(".")[2]]
    if field.annotation in (bool, bool | None) and not (rest and rest[0].lower() in {"true", "false"}):
        return "true"
    if not rest or rest[0].startswith("--"):
        raise ConfigError(f"--{dotted.replace('_', '-')} has no value", remedy="write the value after the key")
    return rest.pop(0)


def full_name(name: str) -> str:
    """The dotted name of a flag: short names and unambiguous last parts are completed."""
    name = name.replace("-", "_")
    if name in SHORT:
        return SHORT[name]
    if name in MAIN_FIELD:
        return f"{name}.{MAIN_FIELD[name]}"
    known = keys()
    if name in known:
        return name
    ending = [key for key in known if key.rpartition(".")[2] == name]
    if len(ending) == 1:
        return ending[0]
    if ending:
        raise ConfigError(f"--{name} could mean {' or '.join(ending)}", remedy="write the section too")
    raise unknown_key(name, [*known, *SHORT, *MAIN_FIELD])


def _place(tree: dict[str, Any], dotted: str, value: str) -> None:
    section, _, key = dotted.rpartition(".")
    holder = tree.setdefault(section, {}) if section else tree
    if key in holder:
        raise ConfigError(f"--{dotted} is given twice", remedy="give it once")
    holder[key] = _columns(value) if dotted == "data.columns" else value


def _columns(value: str) -> dict[str, str]:
    parts = [part.partition("=") for part in value.split(",")]
    if not all(name and equals and column for name, equals, column in parts):
        raise ConfigError(f"--columns {value!r} cannot be read", remedy="write prompt=…,chosen=…,rejected=…")
    return {name.strip(): column.strip() for name, _, column in parts}


def names_an_input(tree: Mapping[str, Any]) -> bool:
    """Whether a tree of keys says which model or which data; if not, the embedded world's recipe is meant."""
    opened = merge({}, tree)
    return any(MAIN_FIELD[name] in opened[name] for name in ("model", "data") if name in opened)


def grounded(tree: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """A file's tree (or none) on the embedded world's recipe, unless it or what is laid over it names an input."""
    if names_an_input(tree) or names_an_input(over):
        return dict(tree)
    return merge(read_file(EMBEDDED_RECIPE), tree)
