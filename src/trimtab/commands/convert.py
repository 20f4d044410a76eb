"""A DPO configuration of another trainer as a recipe of ours, with every key that could not be carried over."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab import config, store
from trimtab.commands.foreign_recipes import (
    LOSSES,
    PLAIN,
    SCHEDULES,
    TRAINER,
    Conversion,
    Tool,
    reason,
)
from trimtab.config.files import read_file
from trimtab.errors import ConfigError, UserError

NUMBERS = ("train.learning_rate", "train.epochs", "adapter.alpha", "objective.beta")  # YAML reads 5e-7 as a text


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was written, and what was not."""

    path: str
    tool: Tool
    key_pairs: tuple[tuple[str, str], ...]
    lost_keys: Mapping[str, str]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "tool": self.tool,
            "carried": [{"theirs": theirs, "ours": key} for theirs, key in self.key_pairs],
            "dropped": dict(self.lost_keys),
            "notes": list(self.notes),
        }


def main(file: str, *, to: str, devices: int = 1) -> Outcome:
    """Read `file` (YAML or JSON), write `to`. `devices`: how many the original ran on, for the size of its batches.

    Raises ConfigError for a file that is none of theirs, an objective that is not here, or a target that exists.
    """
    path = Path(to)
    if path.exists():
        raise ConfigError(f"{path} is there already", remedy="name another file with --to")
    theirs = read_file(Path(file))
    conversion = Conversion(_tool(theirs, file), theirs)
    _plain(conversion)
    _objective(conversion)
    _data(conversion, Path(file).parent)
    _lengths(conversion)
    _adapter(conversion)
    _course(conversion, devices)
    for key, value in theirs.items():
        if key not in conversion.used and value is not None:  # a key without a value is not set
            conversion.lost_keys[key] = reason(key) or "not known to trimtab"
    text = _text(conversion, file)
    try:
        config.resolve(_tree(conversion.tree))
    except UserError as error:
        raise ConfigError(f"{file} cannot be carried over: {error.message}", remedy=error.remedy) from error
    store.write_text(path, text)
    return Outcome(
        str(path), conversion.tool, tuple(conversion.key_pairs), conversion.lost_keys, tuple(conversion.notes)
    )


def lines(outcome: Outcome) -> list[str]:
    """For a terminal."""
    rows = [f"  {key}: {cause}" for key, cause in outcome.lost_keys.items()]
    return [
        f"{outcome.path}: {len(outcome.key_pairs)} keys of a {outcome.tool} configuration carried over",
        *(f"note: {note}" for note in outcome.notes),
        f"{len(rows)} keys not carried over{':' if rows else ''}",
        *rows,
        f"what it will cost: trimtab plan {outcome.path}",
    ]


def _tool(theirs: Mapping[str, Any], file: str) -> Tool:
    if "base_model" in theirs:
        tool: Tool = "axolotl"
    elif "stage" in theirs or "finetuning_type" in theirs or "pref_beta" in theirs:
        tool = "llama-factory"
    elif "model_name_or_path" in theirs:
        tool = "trl"
    else:
        raise ConfigError(
            f"{file} is no configuration of TRL, the alignment-handbook, LLaMA-Factory or Axolotl",
            remedy="it names a model as model_name_or_path or base_model",
        )
    task = theirs.get("rl") if tool == "axolotl" else theirs.get("stage", "dpo")
    if task not in ("dpo", "ipo", "simpo", "orpo"):
        raise ConfigError(
            f"{file} trains by {task or 'supervised fine-tuning'}, not from preference pairs",
            remedy="convert the file of its preference stage",
        )
    return tool


def _plain(conversion: Conversion) -> None:
    """What means the same. A left-out key has its default there, unless an older name of it stands in the file."""
    table = PLAIN[conversion.tool] | TRAINER
    targets = {table[theirs] for theirs in table if conversion.theirs.get(theirs) is not None}
    for theirs, key in table.items():
        if theirs not in conversion.theirs and key in targets:
            continue
        value = conversion.get(theirs)
        if value is not None and value is not False:
            conversion.put(theirs, key, float(value) if key in NUMBERS else value)


def _objective(conversion: Conversion) -> None:
    names = {"trl": "loss_type", "llama-factory": "pref_loss", "axolotl": "rl"}
    key = names[conversion.tool]
    loss = conversion.get(key)
    weights = conversion.get("loss_weights")
    parts = loss if isinstance(loss, list) else [loss]
    unknown = [part for part in parts if part not in LOSSES]
    if unknown:
        raise ConfigError(
            f"{key} {unknown[0]} has no counterpart", remedy="`trimtab objectives` lists what there is to choose from"
        )
    losses = [LOSSES[part] for part in parts]
    if len(losses) > 1 or weights:
        weights = weights or [1.0] * len(losses)
        if len(weights) != len(losses):
            raise ConfigError("loss_weights and loss_type differ in length", remedy="give each loss a weight")
        losses = [f"{name}:{weight:g}" for name, weight in zip(losses, weights, strict=True)]
    conversion.put(key, "objective.name", ",".join(losses))
    if conversion.tree.get("objective.label_smoothing") == 0:
        del conversion.tree["objective.label_smoothing"]
    if conversion.tree.get("objective.sft_weight") == 0:
        del conversion.tree["objective.sft_weight"]
    conversion.drop("stage", "trimtab trains from preference pairs only")


def _data(conversion: Conversion, folder: Path) -> None:
    match conversion.tool:
        case "trl":
            _mixture(conversion)
        case "llama-factory":
            names = [name.strip() for name in str(conversion.get("dataset")).split(",")]
            register = folder / str(conversion.get("dataset_dir") or "data") / "dataset_info.json"
            entries_by_name = store.read_json(register) if register.is_file() else {}
            entries = [entries_by_name.get(name, {}) for name in names]
            sources = [_source_of_entry(name, entry, register) for name, entry in zip(names, entries, strict=True)]
            conversion.put("dataset", "data.source", sources[0] if len(sources) == 1 else sources)
            if open_names := [name for name, entry in zip(names, entries, strict=True) if not entry]:
                conversion.notes.append(
                    f"{', '.join(open_names)} stands in a dataset_info.json that is not here: name the file or Hub set"
                )
        case "axolotl":
            _axolotl_data(conversion)


def _source_of_entry(name: str, entry: Mapping[str, Any], register: Path) -> str:
    """The file or Hub name behind an entry of LLaMA-Factory's register."""
    file, hub = entry.get("file_name"), entry.get("hf_hub_url")
    return str(register.parent / file) if file else str(hub or name)


def _mixture(conversion: Conversion) -> None:
    """TRL's one data set; the alignment-handbook's `dataset_mixer` (older) and `dataset_mixture`."""
    mixer, mixture = conversion.get("dataset_mixer"), conversion.get("dataset_mixture", "datasets")
    parts = mixture.get("datasets", []) if isinstance(mixture, Mapping) else mixture or []
    if mixer:
        shares = {name: float(share) for name, share in mixer.items()}
        conversion.put("dataset_mixer", "data.source", _source(shares, conversion))
    elif parts:
        names = [str(part.get("id") or part.get("path")) for part in parts]
        configs = [part.get("config") or part.get("name") for part in parts]
        full = [f"{name}:{config}" if config else name for name, config in zip(names, configs, strict=True)]
        shares = {name: float(part.get("weight") or 1.0) for name, part in zip(full, parts, strict=True)}
        conversion.put("dataset_mixture", "data.source", _source(shares, conversion))
        if splits := {str(part["split"]) for part in parts if part.get("split")}:
            conversion.tree["data.split"] = splits.pop()
            if splits:
                conversion.notes.append("its data sets name several splits; data.split is one of them")
        if isinstance(mixture, Mapping) and mixture.get("test_split_size"):
            conversion.put("test_split_size", "data.holdout", mixture["test_split_size"])
    elif name := conversion.get("dataset_name"):
        subset = conversion.get("dataset_config")
        conversion.put("dataset_name", "data.source", f"{name}:{subset}" if subset else name)
    splits = conversion.get("dataset_splits")
    if splits:
        conversion.put("dataset_splits", "data.split", splits[0])
        conversion.notes.append(f"of dataset_splits the first is trained on; pairs of {splits[1:]} can be data.eval")
    _require_data(conversion)


def _source(shares: dict[str, float], conversion: Conversion) -> Any:
    if len(shares) == 1:
        return next(iter(shares))
    conversion.notes.append("shares of a mixture are of each data set's rows there, and of the drawn pairs here")
    return shares


def _axolotl_data(conversion: Conversion) -> None:
    parts = conversion.get("datasets") or []
    sources = [str(part["path"]) for part in parts]
    if sources:
        conversion.put("datasets", "data.source", sources[0] if len(sources) == 1 else sources)
    if splits := list(dict.fromkeys(part["split"] for part in parts if part.get("split"))):
        conversion.tree["data.split"] = splits[0]
    if any(key for part in parts for key in part if key not in ("path", "split", "ds_type", "data_files")):
        conversion.notes.append(
            "types and fields of its datasets are not carried over: columns are found by their names, and what is not "
            "found is named with --columns"
        )
    _require_data(conversion)


def _require_data(conversion: Conversion) -> None:
    if "data.source" not in conversion.tree:
        raise ConfigError("it names no data set", remedy="add dataset_name (TRL), dataset, or datasets with a path")


def _lengths(conversion: Conversion) -> None:
    """They bound prompt and response together, and cut the end; ours are two bounds."""
    keys = {"trl": "max_length", "llama-factory": "cutoff_len", "axolotl": "sequence_len"}
    key = keys[conversion.tool]
    length = conversion.get(key)
    if length is None:
        return
    prompt = conversion.tree.get("data.max_prompt_tokens", length // 2)
    conversion.put(key, "data.max_response_tokens", max(1, length - prompt))
    conversion.tree["data.max_prompt_tokens"] = prompt
    conversion.notes.append(
        f"{key} {length} bounds prompt and response together; here they are cut apart, at {prompt} and "
        f"{max(1, length - prompt)} tokens"
    )


def _adapter(conversion: Conversion) -> None:
    if conversion.tool == "trl":
        is_lora, four_bit = bool(conversion.get("use_peft")), conversion.get("load_in_4bit")
        key = "use_peft"
    elif conversion.tool == "axolotl":
        kind = conversion.get("adapter")
        is_lora, four_bit = kind in ("lora", "qlora"), kind == "qlora" or conversion.get("load_in_4bit")
        key = "adapter"
    else:
        kind = conversion.get("finetuning_type")
        if kind not in ("lora", "full"):
            conversion.notes.append(f"finetuning_type {kind} is not here; all weights are trained")
        is_lora, four_bit, key = kind == "lora", conversion.get("quantization_bit") == 4, "finetuning_type"
    targets = conversion.get("lora_target_modules", "lora_target")
    linear = conversion.get("lora_target_linear")
    if not is_lora:
        for name in [name for name in conversion.tree if name.startswith("adapter.")]:
            del conversion.tree[name]
        conversion.key_pairs = [pair for pair in conversion.key_pairs if not pair[1].startswith("adapter.")]
        conversion.put(key, "adapter.kind", "none")
        return
    conversion.put(key, "adapter.kind", "lora")
    if conversion.tool == "llama-factory" and "lora_alpha" not in conversion.theirs:
        conversion.put("lora_alpha", "adapter.alpha", 2.0 * conversion.tree["adapter.rank"])
    if four_bit:
        conversion.put("load_in_4bit", "adapter.quantize", "nf4")
    if targets and targets not in ("all", "all-linear") and not linear:
        parts = [part.strip() for part in targets.split(",")] if isinstance(targets, str) else list(targets)
        conversion.put("lora_target_modules", "adapter.targets", parts)


def _course(conversion: Conversion, devices: int) -> None:
    key = "micro_batch_size" if conversion.tool == "axolotl" else "per_device_train_batch_size"
    size, accumulation = conversion.get(key), conversion.get("gradient_accumulation_steps") or 1
    conversion.put(key, "train.batch_pairs", int(size) * int(accumulation) * devices)
    conversion.notes.append(f"train.batch_pairs is {size} × {accumulation} × {devices} device(s) (--devices)")
    schedule_key = "lr_scheduler" if conversion.tool == "axolotl" else "lr_scheduler_type"
    schedule = conversion.get(schedule_key)
    if schedule in SCHEDULES:
        conversion.put(schedule_key, "train.schedule", SCHEDULES[schedule])
    else:
        conversion.drop(schedule_key, f"the schedules are {', '.join(dict.fromkeys(SCHEDULES.values()))}")
    steps = conversion.get("max_steps")
    if steps is not None and int(steps) > 0:
        conversion.put("max_steps", "train.max_steps", int(steps))
    _warmup(conversion, None if steps is None or int(steps) < 1 else int(steps))
    name = "optimizer" if "optimizer" in conversion.theirs else "optim"
    optimizer = str(conversion.get(name) or "adamw")
    if "8bit" in optimizer:
        conversion.put(name, "train.optimizer", "adamw_8bit")
    elif not optimizer.startswith("adamw"):
        conversion.drop(name, "the optimizer is AdamW")
    save = conversion.get("save_steps")
    if save is not None and float(save) >= 1 and "save_steps" in conversion.theirs:
        conversion.put("save_steps", "train.save_every", int(save))
    keep = conversion.get("save_total_limit")
    if keep is not None:
        conversion.put("save_total_limit", "train.keep_checkpoints", max(2, int(keep)))


def _warmup(conversion: Conversion, steps: int | None) -> None:
    """A share of the steps here; there also a number of steps."""
    ratio, warmup = conversion.get("warmup_ratio"), float(conversion.get("warmup_steps") or 0)
    if ratio is not None:
        conversion.put("warmup_ratio", "train.warmup", float(ratio))
    elif warmup < 1:
        conversion.put("warmup_steps", "train.warmup", warmup)
    elif steps is not None:
        conversion.put("warmup_steps", "train.warmup", round(warmup / steps, 6))
    else:
        conversion.drop("warmup_steps", "train.warmup is a share of all steps, whose number the file does not say")
        conversion.tree["train.warmup"] = 0.0


# --- the file --------------------------------------------------------------------------------------------------------


def _tree(tree: Mapping[str, Any]) -> dict[str, Any]:
    sections: dict[str, Any] = {}
    for key, value in tree.items():
        section, _, name = key.rpartition(".")
        target = sections.setdefault(section, {}) if section else sections
        target[name] = value
    return sections


def _text(conversion: Conversion, file: str) -> str:
    sections = _tree(conversion.tree)
    head = [f"# From {file} ({conversion.tool}), by trimtab convert."]
    head += [f"# Note: {note}." for note in conversion.notes]
    head += [f"# Not carried over: {key} ({cause})." for key, cause in conversion.lost_keys.items()]
    top = {key: value for key, value in sections.items() if not isinstance(value, dict)}
    body = [*head, *_rows(top)]
    for section, values in sections.items():
        if isinstance(values, dict):
            body += ["", f"[{section}]", *_rows(values)]
    return "\n".join(body) + "\n"


def _rows(values: Mapping[str, Any]) -> Iterable[str]:
    return (f"{key} = {_toml(value)}" for key, value in values.items())


def _toml(value: Any) -> str:
    """JSON writes text, numbers and lists as TOML reads them; a table goes on one line."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(inner)}" for key, inner in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)
