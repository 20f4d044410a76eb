"""Frozen, strict configuration: `files` and `flags` read what people write, the run folder keeps the resolved JSON.

A section given as a bare word sets its main field: `model = "Qwen/Qwen2.5-0.5B-Instruct"`, `--objective dpo`.
No key is accepted and ignored, none edits another. `None` means "decided when the run starts"; `plan` prints what
was decided. Lengths are tokens, sizes bytes, shares are in [0, 1].
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError, model_validator
from pydantic.fields import FieldInfo

from trimtab.config import rules
from trimtab.config.evaluation_sections import BenchmarkSection, GenerateSection, JudgeSection
from trimtab.config.section import Section, Switch
from trimtab.config.sections import (
    AdapterSection,
    DataSection,
    EngineSection,
    ModelSection,
    ObjectiveSection,
    PythonObjectiveSection,
    Sections,
    SelectSection,
    TrainSection,
    WindTunnelSection,
)
from trimtab.config.track_section import TrackSection
from trimtab.errors import ConfigError
from trimtab.records import digest

# what `run` does when it is told nothing
EMBEDDED_RECIPE = Path(__file__).parents[1] / "windtunnel" / "recipe.toml"


class Config(Sections):
    """One run. `trimtab plan` prints everything that follows from it."""

    @model_validator(mode="after")
    def _agrees(self) -> Config:
        if reason := rules.disagreement(self):
            raise ValueError(reason)
        return self


# what a bare word given for a section means
MAIN_FIELD = {
    "model": "name",
    "data": "source",
    "objective": "name",
    "adapter": "kind",
    "benchmark": "name",
    "judge": "name",
    "track": "to",
}


# key -> what other trainers (TRL, transformers, PEFT, LLaMA-Factory) call it
_ELSEWHERE = {
    "train.learning_rate": "lr",
    "train.epochs": "num_train_epochs num_epochs n_epochs",
    "train.max_steps": "steps",
    "train.batch_pairs": "batch_size per_device_train_batch_size gradient_accumulation_steps",
    "train.schedule": "lr_scheduler_type scheduler",
    "train.warmup": "warmup_ratio",
    "train.optimizer": "optim",
    "train.save_every": "save_steps",
    "train.keep_checkpoints": "save_total_limit",
    "engine.checkpointing": "gradient_checkpointing",
    "engine.dtype": "bf16 fp16",
    "objective.name": "loss loss_type",
    "model.name": "model_name model_name_or_path",
    "data.source": "dataset dataset_name",
    "data.limit": "max_samples",
    "data.max_response_tokens": "max_length max_completion_length",
    "data.max_prompt_tokens": "max_prompt_length",
    "adapter.rank": "r lora_r lora_rank",
    "adapter.alpha": "lora_alpha",
    "adapter.dropout": "lora_dropout",
    "adapter.targets": "lora_target target_modules",
    "adapter.dora": "use_dora",
    "adapter.quantize": "load_in_4bit",
    "generate.max_new_tokens": "max_tokens",
    "track.to": "report_to",
    "out": "output_dir output",
}
SYNONYMS = {synonym: key for key, words in _ELSEWHERE.items() for synonym in words.split()}


def keys() -> dict[str, type[Section]]:
    """Every key a user may set, key_name, with the section that owns it."""
    owners: dict[str, type[Section]] = {}
    for name, field in Config.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            owners |= {f"{name}.{key}": inner for key in inner.model_fields}
        else:
            owners[name] = Config
    return owners


def field_of(key_name: str) -> FieldInfo:
    """The pydantic field of a key: its type, default and meaning."""
    return keys()[key_name].model_fields[key_name.rpartition(".")[2]]


def default_of(key_name: str) -> Any:
    """The default of a key, or the word `required`."""
    field = field_of(key_name)
    return "required" if field.is_required() else field.default


def flag_name(key_name: str) -> str:
    """A key as people write it after two hyphens: `train.max-steps`; a section's main field by the section alone."""
    section, _, key = key_name.partition(".")
    return section if key and MAIN_FIELD.get(section) == key else key_name.replace("_", "-")


def unknown_key(name: str, names: Sequence[str]) -> ConfigError:
    """The error for a key that does not exist, naming the nearest that does."""
    last = name.rpartition(".")[2]
    by_last = {key.rpartition(".")[2]: key for key in reversed(names)}
    if last in SYNONYMS:
        near = SYNONYMS[last]
    elif close := get_close_matches(name, names, n=1, cutoff=0.5):
        near = close[0]
    else:
        near = next((by_last[word] for word in get_close_matches(last, list(by_last), n=1, cutoff=0.5)), "")
    if last == f"no_{near.rpartition('.')[2]}" and near in keys() and isinstance(default_of(near), bool):
        return ConfigError(f"unknown key {name!r}", remedy=f"write --{near.replace('_', '-')} false")
    return ConfigError(
        f"unknown key {name!r}", remedy=f"did you mean {near!r}?" if near else "`trimtab keys` lists them"
    )


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, section by section; a bare word for a section sets its main field."""
    result = {name: _section_tree(name, value) for name, value in base.items()}
    for name, value in over.items():
        section, below = _section_tree(name, value), result.get(name)
        result[name] = {**below, **section} if isinstance(below, dict) and isinstance(section, dict) else section
    return result


def _section_tree(name: str, value: Any) -> Any:
    return {MAIN_FIELD[name]: value} if name in MAIN_FIELD and not isinstance(value, Mapping) else value


def resolve(tree: Mapping[str, Any], *, objective: ObjectiveSection | None = None) -> Config:
    """The strict configuration, or a `ConfigError` that names the key, the value and the remedy.

    `objective`: a section that no file and no flag can say, in place of the tree's.
    """
    tree = merge({}, tree)
    _refuse_python_objective(tree)
    _known_only(tree)
    if objective is not None:
        tree["objective"] = objective
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        raise _as_config_error(error) from error
    return config if config.out else config.model_copy(update={"out": _default_out(config)})


def _refuse_python_objective(tree: Mapping[str, Any]) -> None:
    match tree.get("objective"):
        case {"name": name, "python_class": python_class}:
            raise ConfigError(
                f"the objective {name} is a value of a Python program ({python_class}): no file has its loss",
                remedy="go on from that program: trimtab.train(…, objective=…, out=…) with the same value",
            )


def section(kind: type[Section], name: str, tree: Mapping[str, Any]) -> Section:
    """One section on its own, as strictly checked as within a whole configuration."""
    _known_only({name: tree})
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise _as_config_error(error) from error


def _as_config_error(error: ValidationError) -> ConfigError:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return ConfigError(f"{place} is not set", remedy=f"add --{flag_name(place)} or write it in the file")
    reason = first["msg"].removeprefix("Value error, ").partition(", unable to ")[0]
    reason = reason.replace("Input should be", "it has to be")
    value = "" if isinstance(first["input"], Mapping | BaseModel) else f" = {_brief(first['input'])}"
    return ConfigError(f"{place}{value}: {reason}".lstrip(": "), remedy="`trimtab keys` shows what each key takes")


def _brief(value: Any) -> str:
    """A value for people: short, and without what may be a password in an address."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of more than 4,300 digits; a list that holds itself
        return "something that cannot be shown"
    if "://" in text:
        return "an address"
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…"


_LONGEST_SHOWN = 200  # characters


def _default_out(config: Config) -> str:
    """One folder for each configuration, so that no run overwrites another; who looks on makes no other run."""
    model = re.sub(r"[^A-Za-z0-9.-]+", "-", Path(config.model.name).name).strip("-.") or "model"
    objective = re.sub(r"[:,]+", "-", config.objective.name)  # a mixture's name, which not every file system takes
    sections = (name for name in Config.model_fields if name != "track")
    return f"runs/{model}-{objective}-{config_digest(config, *sections)[:8]}"


def _known_only(tree: Mapping[str, Any]) -> None:
    names = list(keys())
    if "sweep" in tree:
        raise ConfigError("[sweep]: this is the configuration of many runs", remedy="`trimtab sweep` makes them")
    for name, value in tree.items():
        if name in Config.model_fields and name in names:
            continue
        if name not in Config.model_fields:
            raise unknown_key(name, [*Config.model_fields, *names])
        if not isinstance(value, Mapping):
            raise ConfigError(f"{name} is a section, not a value", remedy=f"write [{name}] and its keys below")
        for key in value:
            if f"{name}.{key}" not in names:
                raise unknown_key(f"{name}.{key}", names)


def to_json(config: Config) -> dict[str, Any]:
    """The resolved configuration as the run folder keeps it."""
    tree: dict[str, Any] = config.model_dump(mode="json")
    return tree


# keys that earlier versions had not: where they are not set, digests are what they were
_LATER = (("data", "eval_split"),)


def config_digest(config: Config, *sections: str) -> str:
    """sha256 of the named sections (all of them when none is named): what an artefact is keyed by."""
    tree = to_json(config)
    for section_name, key in _LATER:
        if tree[section_name][key] is None:
            del tree[section_name][key]
    return digest({name: tree[name] for name in sections} if sections else tree)


__all__ = [
    "EMBEDDED_RECIPE",
    "MAIN_FIELD",
    "AdapterSection",
    "BenchmarkSection",
    "Config",
    "DataSection",
    "EngineSection",
    "GenerateSection",
    "JudgeSection",
    "ModelSection",
    "ObjectiveSection",
    "PythonObjectiveSection",
    "Section",
    "SelectSection",
    "Switch",
    "TrackSection",
    "TrainSection",
    "WindTunnelSection",
    "config_digest",
    "default_of",
    "field_of",
    "flag_name",
    "keys",
    "merge",
    "resolve",
    "section",
    "to_json",
    "unknown_key",
]
