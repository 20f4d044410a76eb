"""Configuration files and run folders as a tree of keys. `config.resolve` makes the tree strict."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from itertools import repeat
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from trimtab.config import EMBEDDED_RECIPE, MAIN_FIELD, merge
from trimtab.errors import ConfigError

LARGEST_FILE = 1_000_000  # bytes
MOST_DOTS = 2_000  # in one line
# plain scalars as YAML 1.2's core schema reads them; PyYAML's YAML 1.1 makes `off` a boolean and `1e-5` a text
_YAML_SCALARS = (
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", "~nN"),
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("tag:yaml.org,2002:int", r"[-+]?(0|[1-9][0-9]*)|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
    ("tag:yaml.org,2002:merge", r"<<", "<"),
)
_DATA_SUFFIXES = {".csv", ".tsv", ".jsonl", ".parquet", ".gz", ".arrow"}


def read_file(path: Path) -> dict[str, Any]:
    """The tree written in a TOML, YAML or JSON file."""
    if path.suffix.lower() in _DATA_SUFFIXES:
        raise ConfigError(f"{path} is no configuration", remedy=f"if it holds preference pairs, write --data {path}")
    if not path.is_file():
        raise ConfigError(f"no such configuration file or run folder: {path}", remedy="check the path, or see recipes/")
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
    if isinstance(tree, list) and path.suffix.lower() == ".json":
        raise ConfigError(
            f"{path} holds a list, no keys",
            remedy=f"if these are preference pairs, write --data {path}; a configuration has sections such as [model]",
        )
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} holds no table of keys", remedy="write sections such as [model] and [data]")
    for name, section in tree.items():  # YAML has keys of other kinds
        if odd := [key for key in (name, *(section if isinstance(section, dict) else ())) if not isinstance(key, str)]:
            raise ConfigError(f"{path}: {odd[0]!r} is no key", remedy="keys are words")
    return tree


def toml_value(value: Any) -> str:
    """A value as it stands in a TOML file. JSON writes text, numbers and lists as TOML reads them; a table goes on one
    line."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(key)} = {toml_value(inner)}" for key, inner in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)


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
            return _parse_yaml(text)
        case suffix:
            raise ConfigError(
                f"{path}: {suffix or 'no suffix'} is no configuration", remedy="use .toml, .yaml or .json"
            )


def _parse_yaml(text: str) -> Any:
    import yaml

    class CoreSchemaLoader(yaml.SafeLoader):
        """PyYAML's loader with YAML 1.2's meaning of plain scalars."""

        yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  # PyYAML's own form

    for tag, pattern, first in _YAML_SCALARS:
        CoreSchemaLoader.add_implicit_resolver(tag, re.compile(f"^(?:{pattern})$"), [*first])
    CoreSchemaLoader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile("^$"), [""])
    try:
        return CoreSchemaLoader(text).get_single_data()
    except yaml.YAMLError as error:
        raise ValueError(error) from error


def read_run(folder: Path, *, flags: Mapping[str, Any]) -> dict[str, Any]:
    """The resolved configuration in a run folder, wherever the folder was moved; `flags` stand beside it.

    A folder may come from anybody: that its model's own code may run has to be said by the user each time.
    """
    tree = stored_config(folder)
    model = tree.get("model")
    trusts = isinstance(model, dict) and model.get("trust_remote_code") not in (None, False)
    if trusts and "trust_remote_code" not in merge({}, flags).get("model", {}):
        raise ConfigError(
            f"{folder} wants the model's own code to be run, and a run folder's word is not enough for that",
            remedy="read that code; if you trust it, add --model.trust-remote-code true",
        )
    return tree | {"out": str(folder)}


def stored_config(folder: Path) -> dict[str, Any]:
    """The tree in a run folder; what a version that had no such key did is written out."""
    tree = merge({}, read_file(folder / "config.json"))
    data = tree.get("data")
    if isinstance(data, dict) and data.get("limit") is not None and data.get("source") != "windtunnel":
        data.setdefault("sample", "first")
    return tree


def refuse_unnamed_servers(folder: Path, *, flags: Mapping[str, Any]) -> None:
    """Raise ConfigError where a secret would go to a server that a run folder alone names, and not the user.

    For commands that send requests. This machine, OpenAI and $OPENAI_BASE_URL need no word of the user's. Nor is a
    program started that the folder alone names as its judge.
    """
    _refuse_unnamed_program(folder, flags=flags)
    if not os.environ.get("OPENAI_API_KEY"):
        return
    tree, of_user = merge({}, read_file(folder / "config.json")), merge({}, flags)
    for key_name in ("base_url", "generate.base_url"):
        url = _value_at(tree, key_name)
        if isinstance(url, str) and _value_at(of_user, key_name) is None and not _is_trusted(url):
            raise ConfigError(
                f"{folder} wants your OPENAI_API_KEY sent to {urlsplit(url).hostname}, and a run folder's word is not "
                "enough for that",
                remedy=f"if that server may have the key, add --{key_name.replace('_', '-')} {url}",
            )


def _refuse_unnamed_program(folder: Path, *, flags: Mapping[str, Any]) -> None:
    name = _value_at(merge({}, read_file(folder / "config.json")), "judge.name")
    is_program = isinstance(name, str) and re.match(r"command:|.+\.py(:\w+)?\Z", name) is not None
    if is_program and _value_at(merge({}, flags), "judge.name") is None:
        raise ConfigError(
            f"{folder} wants {name} started, and a run folder's word is not enough for that",
            remedy=f"if that program may run, add --judge '{name}'",
        )


def _value_at(tree: Mapping[str, Any], key_name: str) -> Any:
    value: Any = tree
    for part in key_name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _is_trusted(url: str) -> bool:
    safe_servers = ("https://api.openai.com", os.environ.get("OPENAI_BASE_URL", ""))
    try:
        address = urlsplit(url)
        return address.hostname in ("localhost", "127.0.0.1", "::1") or any(
            (address.scheme, address.netloc) == urlsplit(server)[:2] for server in safe_servers
        )
    except ValueError:  # no address: `config.resolve` says so
        return True


def names_an_input(tree: Mapping[str, Any]) -> bool:
    """Whether a tree of keys says which model or which data; if not, the embedded world's recipe is meant."""
    sections = merge({}, tree)
    return any(MAIN_FIELD[name] in sections[name] for name in ("model", "data") if name in sections)


def on_recipe(tree: Mapping[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """A file's tree (or none) on the embedded world's recipe, unless it or the flags name a model or data."""
    if names_an_input(tree) or names_an_input(flags):
        return dict(tree)
    return merge(read_file(EMBEDDED_RECIPE), tree)
