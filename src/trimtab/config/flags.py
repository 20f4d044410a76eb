"""Every key as a flag, made from the sections: what `--help` lists and what cyclopts parses.

    --train.learning-rate 2e-4    --learning-rate 2e-4    the section may be left out where one key alone ends so
    --objective dpo               a section's main field
    --offline    --offline false  yes or no

Kebab and snake case are the same. Values stay the texts that were written: `config.resolve` is strict about them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict, get_args, get_origin

from cyclopts import (
    App,
    CycloptsError,
    Group,
    MissingArgumentError,
    Parameter,
    RepeatArgumentError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from trimtab.config import (
    MAIN_FIELD,
    Config,
    default_of,
    field_of,
    flag_name,
    keys,
    merge,
    resolve,
    to_json,
    unknown_key,
)
from trimtab.errors import ConfigError, TrimtabError

SHORT = {"benchmark_dir": "benchmark.dir"}  # further names, beside main fields and last parts


def _key_names() -> dict[str, str]:
    """What may be written for a key, in snake case: its key_name name, and shorter forms that name no other key."""
    key_name = list(keys())
    last_parts = Counter(name.rpartition(".")[2] for name in key_name)
    main_fields = {section: f"{section}.{key}" for section, key in MAIN_FIELD.items()}
    short = {last: name for name in key_name if last_parts[last := name.rpartition(".")[2]] == 1}
    # the full name first: cyclopts takes `--model.name` for a part of `--model` where it meets that before
    return {name: name for name in key_name} | main_fields | short | SHORT


def full_name(name: str, *, switches: Sequence[str] = ()) -> str:
    """The key_name name of a key, from any form in which it may be written.

    Raises ConfigError where there is none; `switches` are further words that may have been meant.
    """
    name = name.replace("-", "_")
    names = _key_names()
    if name in names:
        return names[name]
    if same_end := [key for key in keys() if key.rpartition(".")[2] == name]:
        raise ConfigError(f"--{name} could mean {' or '.join(same_end)}", remedy="write the section too")
    raise unknown_key(name, [*names, *switches])


def _parameter(key_name: str, names: Iterable[str]) -> Any:
    """The annotated type by which cyclopts knows one key: its names, choices, default and meaning.

    Only yes and no have a type of their own: cyclopts would round 1.5 to a whole number, and the sections are strict.
    """
    field = field_of(key_name)
    [kind, *_] = [kind for kind in get_args(field.annotation) or [field.annotation] if kind is not type(None)]
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    default = default_of(key_name)
    # cyclopts shows no default of a TypedDict's field: it stands in the text
    ending = "" if default in (None, "", (), "required") else f" [default: {_word(default)}]"
    return Annotated[
        bool if kind is bool else str,
        Parameter(
            name=tuple(f"--{name.replace('_', '-')}" for name in names),
            negative=(),
            group=_group(key_name),
            metavar="|".join(choices) or ("INT" if kind is int else "FLOAT" if kind is float else "TEXT"),
            help=f"{field.description}{ending}",
        ),
    ]


def _word(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case dict():
            return ",".join(f"{name}{'=' if isinstance(of, str) else ':'}{of}" for name, of in value.items())
        case list() | tuple():
            return ",".join(map(str, value))
        case _:
            return str(value)


@cache
def key_type(*sections: str) -> Any:
    """The type of a command's parameter that takes keys: all of them, or those of the sections that are named."""
    names: dict[str, list[str]] = {}
    for name, key_name in _key_names().items():
        names.setdefault(key_name, []).append(name)
    fields: dict[str, Any] = {
        key_name: _parameter(key_name, names[key_name])
        for key_name in keys()
        if not sections or key_name.partition(".")[0] in sections
    }
    return Annotated[TypedDict("Keys", fields, total=False), Parameter(name="*")]  # type: ignore[operator]


def _group(key_name: str) -> Group:
    """The panel of `--help` in which a key stands: its section's, in the configuration's order, or `run`'s."""
    section, inside, _ = key_name.partition(".")
    return _section_group(section if inside else "")


@cache  # cyclopts wants one group of a name
def _section_group(section: str) -> Group:
    if not section:
        return Group("run", sort_key=0)
    kind = Config.model_fields[section].annotation
    return Group(section, sort_key=1 + [*Config.model_fields].index(section), help=kind.__doc__ or "")


if TYPE_CHECKING:
    Keys = Mapping[str, str | bool] | None
    DataKeys = Keys
else:
    Keys = key_type()
    DataKeys = key_type("model", "data", "offline")


def tree(flags: Keys) -> dict[str, Any]:
    """The tree of keys that cyclopts found."""
    sections: dict[str, Any] = {}
    for key_name, value in (flags or {}).items():
        sections = merge(sections, setting(key_name, value))
    return sections


def setting(key_name: str, value: str | bool) -> dict[str, Any]:
    """The tree of one key and its value as written."""
    section, _, key = key_name.rpartition(".")
    read = _PARSERS.get(key_name)
    inner = read(value) if read is not None and isinstance(value, str) else value
    return {section: {key: inner}} if section else {key: inner}


def _columns(value: str) -> dict[str, str]:
    parts = [part.partition("=") for part in value.split(",")]
    if not all(name and equals and column for name, equals, column in parts):
        raise ConfigError(f"--columns {value!r} cannot be read", remedy="write prompt=…,chosen=…,rejected=…")
    return {name.strip(): column.strip() for name, _, column in parts}


def _sources(value: str) -> str | list[str] | dict[str, str]:
    """`a.jsonl:2,b.jsonl:1` by name, `a.jsonl,b.jsonl` as a list; without a comma the name of one source, colons and
    all."""
    if "," not in value:
        return value
    parts = [part.strip().rpartition(":") for part in value.split(",")]
    names, weights = [name or weight for name, _, weight in parts], [weight for name, _, weight in parts if name]
    is_weighted = len(weights) == len(names) and all(map(_is_number, weights))
    if not all(names) or (weights and not is_weighted) or any(":" in name for name in names):
        raise ConfigError(
            f"--data {value!r} cannot be read",
            remedy="write a.jsonl:2,b.jsonl:1 with a weight for each or for none; a name with a colon or a comma goes "
            'into a file: [data.source] and a line "NAME" = WEIGHT for each',
        )
    if len(set(names)) < len(names):
        raise ConfigError(f"--data {value!r} names a source twice", remedy="name it once, with the sum of its weights")
    return dict(zip(names, weights, strict=True)) if weights else names


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


_PARSERS: dict[str, Callable[[str], Any]] = {"data.columns": _columns, "data.source": _sources}


def join_booleans(words: Iterable[str]) -> list[str]:
    """`--offline false` as `--offline=false`: cyclopts lets no value follow a yes-or-no flag as a word of its own."""
    tokens: list[str] = []
    for word in words:
        if word.lower() in {"true", "false"} and tokens and tokens[-1].startswith("--") and "=" not in tokens[-1]:
            tokens[-1] += f"={word}"
        else:
            tokens.append(word)
    return tokens


def parse(words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """The bare words, and the flags among them as a tree. Raises ConfigError for a flag that no key has."""

    def collect(*bare: str, flags: Keys = None) -> tuple[list[str], dict[str, Any]]:
        return list(bare), tree(flags)

    app = App(help_flags=(), version_flags=())
    app.default(collect)
    try:
        _, arguments, _ = app.parse_args(join_booleans(words), exit_on_error=False, print_error=False)
    except CycloptsError as error:
        raise as_config_error(error) from error
    return collect(*arguments.args, **arguments.kwargs)


def as_config_error(error: CycloptsError) -> ConfigError:
    """What cyclopts complains of, with the nearest known key where a flag is unknown."""
    match error:
        case UnknownOptionError():
            return _unknown_option(error)
        case UnusedCliTokensError():
            word = (error.unused_tokens or [""])[0]
            return ConfigError(f"unexpected word {word!r}", remedy="keys are written --section.key VALUE")
        case MissingArgumentError() if error.keyword:
            return ConfigError(f"{error.keyword} has no value", remedy="write the value after the key")
        case RepeatArgumentError():
            return ConfigError(f"{error.token.keyword} is given twice", remedy="give it once")
        case MissingArgumentError() if error.argument is not None:
            command = " ".join(error.command_chain or ())
            name = error.argument.name.lstrip("-")
            is_word = error.argument.field_info.is_positional
            missing = name.upper() if is_word else f"--{name}"
            return ConfigError(f"{command} needs {missing}", remedy=f"`trimtab {command} --help` says what it takes")
        case _:
            text = str(error).strip()
            return ConfigError(text[:1].lower() + text[1:], remedy=_HELP)


_HELP = "`trimtab --help` lists the commands and `trimtab COMMAND --help` what each takes"


def _unknown_option(error: UnknownOptionError) -> ConfigError:
    """A flag that is no key, or no key of this command; commands without keys have cyclopts' own suggestion."""
    option = (error.token.keyword or error.token.value).partition("=")[0]
    names = [name.lstrip("-").replace("-", "_") for argument in error.argument_collection for name in argument.names]
    if not option.startswith("--") or "data.source" not in names:
        return ConfigError(str(error).strip(), remedy=_HELP)
    try:
        return ConfigError(f"this command has no use for {full_name(option[2:], switches=names)}", remedy=_HELP)
    except ConfigError as unknown:
        return unknown


def as_words(config: Config) -> list[str] | None:
    """Flags that say a configuration, each key that differs from its default; None where flags cannot say it."""
    values = to_json(config)
    words: list[str] = []
    for key_name in keys():
        section, _, key = key_name.rpartition(".")
        value = values[section][key] if section else values[key]
        if value not in (None, []) and value != default_of(key_name):
            words += [f"--{flag_name(key_name)}", _word(value)]
    try:
        copy = resolve(parse(words)[1])
    except TrimtabError:
        return None
    return words if copy == config else None
