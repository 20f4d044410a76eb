"""A DPO configuration of another trainer as a recipe of ours, with every key that could not be carried over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab import config, store
from trimtab.commands import foreign_data
from trimtab.commands.foreign_recipes import (
    ADAPTERS,
    LOSSES,
    PLAIN,
    SCHEDULES,
    TRAINER,
    Conversion,
    Tool,
    reason,
)
from trimtab.commands.foreign_values import as_number
from trimtab.config.files import read_file, toml_value
from trimtab.errors import ConfigError, UserError

WHOLE = frozenset({"data.max_prompt_tokens", "data.max_response_tokens", "data.limit", "adapter.rank", "seed"})
NUMBERS = frozenset(
    {
        "data.holdout", "adapter.alpha", "objective.beta", "objective.gamma", "objective.label_smoothing",
        "objective.ld_alpha", "objective.sft_weight", "train.learning_rate", "train.epochs", "train.weight_decay",
        "train.max_grad_norm",
    }
)  # fmt: skip


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
    foreign_data.carry(conversion, Path(file).parent)
    _lengths(conversion)
    _adapter(conversion)
    _course(conversion, devices)
    for key, value in theirs.items():
        if key not in conversion.used and value is not None:  # a key without a value is not set
            conversion.lost_keys[key] = reason(key) or "not known to trimtab"
    try:
        config.resolve(_tree(conversion.tree))
    except UserError as error:
        raise ConfigError(f"{file} cannot be carried over: {error.message}", remedy=error.remedy) from error
    store.write_text(path, _text(conversion, file))
    return Outcome(
        str(path), conversion.tool, tuple(conversion.key_pairs), conversion.lost_keys, tuple(conversion.notes)
    )


def lines(outcome: Outcome) -> list[str]:
    """For a terminal."""
    rows = [f"  {key}: {cause}" for key, cause in outcome.lost_keys.items()]
    return [
        f"{outcome.path}: {len(outcome.key_pairs)} keys carried over from {outcome.tool}",
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
        read = conversion.whole if key in WHOLE else conversion.number if key in NUMBERS else conversion.get
        value = read(theirs)
        if key == "data.holdout" and value is not None and value >= 1:
            conversion.drop(theirs, f"it counts rows ({value:g}); data.holdout is a share of the prompts")
        elif value is not None and value is not False:
            conversion.put(theirs, key, value)


def _objective(conversion: Conversion) -> None:
    names = {"trl": "loss_type", "llama-factory": "pref_loss", "axolotl": "rl"}
    key = names[conversion.tool]
    parts, weights = conversion.words(key), conversion.numbers("loss_weights")
    unknown = [part for part in parts if part not in LOSSES]
    if unknown or not parts:
        raise ConfigError(
            f"{key} {unknown[0] if unknown else 'of nothing'} has no counterpart",
            remedy="`trimtab objectives` lists what there is to choose from",
        )
    losses = [LOSSES[part] for part in parts]
    if conversion.tool == "trl" and conversion.theirs.get("use_weighting"):
        losses = _weighted(conversion, losses)
    if len(losses) > 1 or weights:
        weights = weights or [1.0] * len(losses)
        if len(weights) != len(losses):
            raise ConfigError("loss_weights and loss_type differ in length", remedy="give each loss a weight")
        losses = [f"{name}:{weight:g}" for name, weight in zip(losses, weights, strict=True)]
    conversion.put(key, "objective.name", ",".join(losses))
    if conversion.tool == "axolotl":
        _axolotl_objective(conversion)
    if conversion.tool == "trl" and losses == ["dpo"] and conversion.tree.get("objective.label_smoothing"):
        conversion.notes.append("TRL's default loss ignores label_smoothing; here it is conservative DPO's")
    if conversion.tree.get("objective.label_smoothing") == 0:
        del conversion.tree["objective.label_smoothing"]
    if conversion.tree.get("objective.sft_weight") == 0:
        del conversion.tree["objective.sft_weight"]
    conversion.drop("stage", "trimtab trains from preference pairs only")


def _weighted(conversion: Conversion, losses: list[str]) -> list[str]:
    """The losses under TRL's `use_weighting`, which has WPO's weights multiply any of them."""
    if losses != ["dpo"]:
        conversion.drop("use_weighting", "WPO's weights are those of objective wpo, which is DPO's loss with them")
        return losses
    conversion.used.add("use_weighting")
    conversion.key_pairs.append(("use_weighting", "objective.name"))
    if conversion.tree.pop("objective.label_smoothing", 0):
        conversion.key_pairs.remove(("label_smoothing", "objective.label_smoothing"))
        conversion.drop("label_smoothing", "TRL's default loss ignores it, and wpo has none")
    return ["wpo"]


def _axolotl_objective(conversion: Conversion) -> None:
    """What its builder of TRL's trainers makes of other keys: `trl.beta` goes first, ORPO's weight is a beta, and
    SimPO is CPO's trainer, whose likelihood term weighs 1 unless cpo_alpha says otherwise."""
    section = conversion.mapping("trl")
    if set(section) - {"beta"}:
        conversion.drop("trl", "of it only beta is carried over")
    if section.get("beta") is not None:
        conversion.put("trl", "objective.beta", as_number("trl.beta", section["beta"]))
    elif not {"rl_beta", "dpo_beta"} & set(conversion.theirs) and (beta := conversion.number("orpo_alpha")) is not None:
        conversion.put("orpo_alpha", "objective.beta", beta)
    if conversion.tree["objective.name"] == "simpo":
        weight = conversion.number("cpo_alpha")
        conversion.put("cpo_alpha", "objective.sft_weight", 1.0 if weight is None else weight)


def _lengths(conversion: Conversion) -> None:
    """They bound prompt and response together, and cut the end; ours are two bounds. A bound of their prompt that is
    not below the whole bounds nothing."""
    keys = {"trl": "max_length", "llama-factory": "cutoff_len", "axolotl": "sequence_len"}
    key = keys[conversion.tool]
    length = conversion.whole(key)
    if length is None or conversion.theirs.get(key, length) is None:
        conversion.notes.append(f"{key} bounds nothing there; here prompts and responses have bounds of their own")
        return
    prompt = conversion.tree.get("data.max_prompt_tokens", length)
    prompt = prompt if prompt < length else length // 2
    response = min(conversion.tree.get("data.max_response_tokens", length), max(1, length - prompt))
    conversion.put(key, "data.max_response_tokens", response)
    conversion.tree["data.max_prompt_tokens"] = prompt
    conversion.notes.append(
        f"{key} {length} bounds prompt and response together; here they are cut apart, at {prompt} and "
        f"{response} tokens"
    )


def _adapter(conversion: Conversion) -> None:
    key, kinds = ADAPTERS[conversion.tool]
    kind = conversion.get(key)
    if kind in kinds:
        conversion.put(key, "adapter.kind", "lora")
        _lora(conversion, key, kind)
        return
    if kind not in (None, False, "full"):
        conversion.notes.append(f"{key} {kind} is not here; all weights are trained")
    for name in [name for name in conversion.tree if name.startswith("adapter.")]:
        del conversion.tree[name]
    conversion.key_pairs = [pair for pair in conversion.key_pairs if not pair[1].startswith("adapter.")]
    for name in [name for name in conversion.theirs if name.startswith("lora_")]:
        conversion.drop(name, "no adapter is trained")
    conversion.put(key, "adapter.kind", "none")


def _lora(conversion: Conversion, key: str, kind: Any) -> None:
    if conversion.tool == "llama-factory" and "lora_alpha" not in conversion.theirs:
        conversion.put("lora_alpha", "adapter.alpha", 2.0 * conversion.tree["adapter.rank"])
    if kind == "qlora":
        conversion.put(key, "adapter.quantize", "nf4")
    bits = conversion.whole("quantization_bit")
    if conversion.get("load_in_4bit") or bits == 4:
        conversion.put("quantization_bit" if bits else "load_in_4bit", "adapter.quantize", "nf4")
    elif bits:
        conversion.drop("quantization_bit", "frozen weights are whole, or in 4 bits (nf4)")
    if conversion.theirs.get("disable_dropout") is False:
        conversion.put("lora_dropout", "adapter.dropout", conversion.number("lora_dropout") or 0.0)
    else:
        conversion.drop("lora_dropout", "their DPO trainer switches every dropout off, the adapter's too")
    name = "lora_target" if conversion.tool == "llama-factory" else "lora_target_modules"
    targets = [part.strip() for word in conversion.words(name) for part in word.split(",") if part.strip()]
    is_linear = conversion.get("lora_target_linear") or targets in (["all"], ["all-linear"])
    if targets and not is_linear:
        conversion.put(name, "adapter.targets", targets)
    elif not targets and not is_linear:
        conversion.notes.append(
            "it names no modules: PEFT then adapts those that it lists for the family (q_proj and v_proj in Llama and "
            "Qwen2); here it is every linear layer, unless adapter.targets says otherwise"
        )


def _course(conversion: Conversion, devices: int) -> None:
    key = "micro_batch_size" if conversion.tool == "axolotl" else "per_device_train_batch_size"
    size, accumulation = conversion.whole(key) or 0, conversion.whole("gradient_accumulation_steps")
    total = conversion.whole("batch_size") if conversion.tool == "axolotl" else None  # of one device, there
    accumulation = accumulation or (total // max(1, size) if total else 1)
    conversion.put(key, "train.batch_pairs", size * accumulation * devices)
    conversion.notes.append(f"train.batch_pairs is {size} × {accumulation} × {devices} device(s) (--devices)")
    steps = max(0, conversion.whole("max_steps") or 0) or None  # -1: as many as the epochs have
    if steps is not None:
        conversion.put("max_steps", "train.max_steps", steps)
    _warmup(conversion, steps)
    _schedule(conversion)
    _optimizer(conversion)
    save, keep = conversion.number("save_steps"), conversion.whole("save_total_limit")
    if save is not None and save >= 1:
        conversion.put("save_steps", "train.save_every", conversion.whole("save_steps"))
    elif save is not None:
        conversion.drop("save_steps", "train.save_every counts steps; default ten a run")
    if keep is not None:
        conversion.put("save_total_limit", "train.keep_checkpoints", max(2, keep))


def _schedule(conversion: Conversion) -> None:
    key = "lr_scheduler" if conversion.tool == "axolotl" else "lr_scheduler_type"
    schedule = str(conversion.get(key))
    if schedule in SCHEDULES:
        conversion.put(key, "train.schedule", SCHEDULES[schedule])
    elif schedule.startswith("cosine"):
        conversion.put(key, "train.schedule", "cosine")
        conversion.notes.append(f"{schedule} is not here; train.schedule cosine falls to zero once")
    else:
        conversion.drop(key, f"the schedules are {', '.join(dict.fromkeys(SCHEDULES.values()))}")
    if schedule == "constant" and conversion.tree.get("train.warmup"):
        conversion.tree["train.warmup"] = 0.0
        conversion.notes.append("their schedule constant has no warm-up, whatever else is set")


def _optimizer(conversion: Conversion) -> None:
    name = "optimizer" if "optimizer" in conversion.theirs else "optim"
    optimizer = str(conversion.get(name) or "adamw")
    if name not in conversion.theirs:
        return
    if not optimizer.startswith(("adamw", "paged_adamw", "ao_adamw", "optimi_adamw")):
        conversion.drop(name, "the optimizer is AdamW")
    elif "4bit" in optimizer or "fp8" in optimizer:
        conversion.drop(name, "AdamW keeps its moments in 32 or in 8 bits")
    else:
        conversion.put(name, "train.optimizer", "adamw_8bit" if "8bit" in optimizer else "adamw")


def _warmup(conversion: Conversion, steps: int | None) -> None:
    """A share of the steps here; there also a number of steps, which goes before the share."""
    ratio, warmup = conversion.number("warmup_ratio"), conversion.number("warmup_steps") or 0.0
    if warmup:
        conversion.drop("warmup_ratio", "warmup_steps goes before it")
    if warmup >= 1 and steps is not None:
        conversion.put("warmup_steps", "train.warmup", round(warmup / steps, 6))
    elif warmup >= 1:
        conversion.drop("warmup_steps", "train.warmup is a share of all steps, whose number the file does not say")
        conversion.tree["train.warmup"] = 0.0
    elif ratio is not None and not warmup:
        conversion.put("warmup_ratio", "train.warmup", ratio)
    else:
        conversion.put("warmup_steps", "train.warmup", warmup)


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
    return (f"{key} = {toml_value(value)}" for key, value in values.items())
