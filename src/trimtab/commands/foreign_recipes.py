"""Configurations of other trainers, key by key, after their public documentation and examples.

TRL (DPOConfig, ModelConfig and the script's arguments; the alignment-handbook's files are these with a mixture of data
sets), LLaMA-Factory (`stage: dpo`) and Axolotl (`rl: dpo`). What they leave out has their default, not ours, so those
that bear on the result are written out. What has no counterpart is named with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from trimtab.commands.foreign_values import as_list, as_mapping, as_number, as_whole, as_words

Tool = Literal["trl", "llama-factory", "axolotl"]

# theirs -> ours, where the value means the same
PLAIN: dict[Tool, dict[str, str]] = {
    "trl": {
        "model_name_or_path": "model.name",
        "model_revision": "model.revision",
        "trust_remote_code": "model.trust_remote_code",
        "dataset_train_split": "data.split",
        "test_split_size": "data.holdout",
        "max_prompt_length": "data.max_prompt_tokens",
        "max_completion_length": "data.max_response_tokens",
        "lora_r": "adapter.rank",
        "lora_alpha": "adapter.alpha",
        "use_dora": "adapter.dora",
        "beta": "objective.beta",
        "label_smoothing": "objective.label_smoothing",
        "ld_alpha": "objective.ld_alpha",
        "rpo_alpha": "objective.sft_weight",
        "output_dir": "out",
    },
    "llama-factory": {
        "model_name_or_path": "model.name",
        "model_revision": "model.revision",
        "trust_remote_code": "model.trust_remote_code",
        "max_samples": "data.limit",
        "val_size": "data.holdout",
        "lora_rank": "adapter.rank",
        "lora_alpha": "adapter.alpha",
        "use_dora": "adapter.dora",
        "pref_beta": "objective.beta",
        "dpo_label_smoothing": "objective.label_smoothing",
        "pref_ftx": "objective.sft_weight",
        "ld_alpha": "objective.ld_alpha",
        "ref_model": "model.reference",
        "simpo_gamma": "objective.gamma",
        "output_dir": "out",
    },
    "axolotl": {
        "base_model": "model.name",
        "revision_of_model": "model.revision",
        "model_revision": "model.revision",
        "trust_remote_code": "model.trust_remote_code",
        "val_set_size": "data.holdout",
        "max_prompt_len": "data.max_prompt_tokens",
        "lora_r": "adapter.rank",
        "lora_alpha": "adapter.alpha",
        "peft_use_dora": "adapter.dora",
        "rl_beta": "objective.beta",
        "dpo_beta": "objective.beta",
        "dpo_label_smoothing": "objective.label_smoothing",
        "rpo_alpha": "objective.sft_weight",
        "simpo_gamma": "objective.gamma",
        "num_epochs": "train.epochs",
        "output_dir": "out",
    },
}
# of the trainer that all three are built on
TRAINER = {
    "learning_rate": "train.learning_rate",
    "num_train_epochs": "train.epochs",
    "weight_decay": "train.weight_decay",
    "max_grad_norm": "train.max_grad_norm",
    "seed": "seed",
}
# what a left-out key means there, and bears on the result
DEFAULTS: dict[Tool, dict[str, Any]] = {
    "trl": {
        "learning_rate": 1e-6, "num_train_epochs": 3, "per_device_train_batch_size": 8, "lr_scheduler_type": "linear",
        "warmup_steps": 0, "beta": 0.1, "loss_type": "sigmoid", "seed": 42, "max_length": 1024, "test_split_size": 0.0,
        "lora_r": 16, "lora_alpha": 32, "lora_dropout": 0.05,
    },
    "llama-factory": {
        "learning_rate": 5e-5, "num_train_epochs": 3, "per_device_train_batch_size": 8, "lr_scheduler_type": "linear",
        "warmup_steps": 0, "pref_beta": 0.1, "pref_loss": "sigmoid", "seed": 42, "cutoff_len": 2048, "val_size": 0.0,
        "finetuning_type": "lora", "lora_rank": 8,
    },
    "axolotl": {
        "num_epochs": 1, "micro_batch_size": 1, "lr_scheduler": "cosine", "warmup_ratio": 0.03, "rl_beta": 0.1,
        "seed": 42, "sequence_len": 512, "val_set_size": 0.0,
    },
}  # fmt: skip
LOSSES = {
    "sigmoid": "dpo", "hinge": "dpo_hinge", "ipo": "ipo", "exo_pair": "exo_pair", "nca_pair": "nca_pair",
    "robust": "robust", "bco_pair": "bco_pair", "sppo_hard": "sppo_hard", "aot": "aot", "aot_unpaired": "aot_unpaired",
    "aot_pair": "aot", "discopop": "discopop", "apo_zero": "apo_zero", "apo_down": "apo_down", "sft": "sft",
    "sigmoid_norm": "sigmoid_norm", "dpo": "dpo", "simpo": "simpo", "orpo": "orpo",
}  # fmt: skip
# the key that says whether an adapter is trained, and its values that mean LoRA
ADAPTERS: dict[Tool, tuple[str, tuple[Any, ...]]] = {
    "trl": ("use_peft", (True,)), "llama-factory": ("finetuning_type", ("lora",)),
    "axolotl": ("adapter", ("lora", "qlora")),
}  # fmt: skip
SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant", "constant_with_warmup": "constant"}

_AUTOMATIC = "trimtab decides that itself"
_LOGS = "every step is logged; trackers are flags of `trimtab run`"
_HUB = "nothing is uploaded by a run"
_DATA = "pairs are read and rendered without it"
_HELD_OUT = "name the pairs to hold out as data.eval"
_CONTINUED = "an adapter to go on from is merged into its model first"
_EVAL = "held-out pairs are looked at on milestones"
# why a known key has no counterpart, by the beginning of its name; the longest that fits speaks
REASONS = {
    "attn_implementation": _AUTOMATIC, "bf16": "engine.dtype auto decides", "bfloat16": "engine.dtype auto decides",
    "chat_template": "the tokenizer's own template is used", "dataloader_": _DATA, "dataset_num_proc": _DATA,
    "dataset_prepared_path": _DATA, "ddp_": _AUTOMATIC, "deepspeed": _AUTOMATIC, "do_eval": _EVAL,
    "do_train": _AUTOMATIC, "dtype": "engine.dtype auto decides", "eval_": _EVAL, "evaluation_": _EVAL,
    "flash_attention": _AUTOMATIC, "fp16": "engine.dtype auto decides", "fsdp": _AUTOMATIC,
    "gradient_checkpointing": "engine.checkpointing auto decides", "hub_": _HUB,
    "load_best_model": "select.by decides", "log_": _LOGS, "logging_": _LOGS, "output_dir_overwrite": _AUTOMATIC,
    "overwrite_": _AUTOMATIC, "padding_free": _AUTOMATIC, "pad_to": _AUTOMATIC, "per_device_eval": _EVAL,
    "plot_loss": _LOGS, "precompute_ref": "the reference is always cached", "preprocessing_": _DATA,
    "push_to_hub": _HUB, "remove_unused": _DATA, "report_to": _LOGS, "run_name": _LOGS, "sample_packing": _AUTOMATIC,
    "save_only_model": _AUTOMATIC, "save_strategy": _AUTOMATIC, "template": _DATA, "tf32": _AUTOMATIC,
    "tokenizer_type": _AUTOMATIC, "torch_dtype": "engine.dtype auto decides",
    "truncation_mode": "prompts lose their oldest messages, responses their end", "use_liger": _AUTOMATIC,
    "wandb_": _LOGS, "dataset_test_split": _EVAL,
    "load_in_8bit": "8-bit weights are not to be had", "xformers": _AUTOMATIC,
    "special_tokens": "the tokenizer's own are used", "strict": _AUTOMATIC, "debug": _AUTOMATIC,
    "model_type": _AUTOMATIC, "mlflow_": _LOGS, "saves_per_epoch": "train.save_every counts steps; default ten a run",
    "evals_per_epoch": _EVAL, "is_llama": _AUTOMATIC, "is_mistral": _AUTOMATIC, "train_on_inputs": _DATA,
    "group_by_length": _AUTOMATIC, "flash_attn": _AUTOMATIC, "enable_liger": _AUTOMATIC, "packing": _AUTOMATIC,
    "neat_packing": _AUTOMATIC, "use_unsloth": _AUTOMATIC, "pure_bf16": "engine.dtype auto decides",
    "disable_gradient_checkpointing": "engine.checkpointing auto decides", "adam_beta": "AdamW's are .9 and .999",
    "adam_epsilon": "AdamW's is 1e-8", "eval_dataset": _HELD_OUT, "test_datasets": _HELD_OUT,
    "adapter_name_or_path": _CONTINUED, "lora_model_dir": _CONTINUED, "bnb_4bit": "4-bit weights are nf4",
    "disable_dropout": "only adapter.dropout switches one on", "resume_from_checkpoint": "--resume goes on",
    "lr_scheduler_kwargs": "the schedules have no parameters", "sync_ref_model": "the reference stays frozen",
    "ref_model_": "the reference stays frozen", "f_divergence": "the divergence is the reverse KL",
}  # fmt: skip


@dataclass(slots=True)
class Conversion:
    """`tree`: ours, by dotted key. `key_pairs`: (theirs, ours); `lost_keys`: theirs, with the reason; `notes`: what
    means something else here."""

    tool: Tool
    theirs: Mapping[str, Any]
    tree: dict[str, Any] = field(default_factory=dict)
    key_pairs: list[tuple[str, str]] = field(default_factory=list)
    lost_keys: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    def get(self, *names: str) -> Any:
        """The first of these that is there, else the default of the first that has one; all count as read."""
        self.used.update(names)
        for name in names:
            if self.theirs.get(name) is not None:
                return self.theirs[name]
        return next((DEFAULTS[self.tool][name] for name in names if name in DEFAULTS[self.tool]), None)

    def number(self, name: str) -> float | None:
        """`get` as a number; None where nothing is set."""
        value = self._without_auto(name)
        return None if value is None else as_number(name, value)

    def whole(self, name: str) -> int | None:
        """`get` as a whole number; None where nothing is set."""
        value = self._without_auto(name)
        return None if value is None else as_whole(name, value)

    def numbers(self, name: str) -> list[float]:
        """`get` as a list of numbers; empty where nothing is set."""
        return [as_number(name, value) for value in as_list(name, self.get(name))]

    def words(self, name: str) -> list[str]:
        """`get` as words, of which there may be one; empty where nothing is set."""
        return as_words(name, self.get(name))

    def mapping(self, name: str) -> Mapping[str, Any]:
        """`get` as a table of keys; empty where nothing is set."""
        return as_mapping(name, self.get(name))

    def _without_auto(self, name: str) -> Any:
        """DeepSpeed's word for what its trainer fills in counts as left out, and that is said."""
        value = self.get(name)
        if value != "auto":
            return value
        self.drop(name, "auto is filled in by DeepSpeed there; here it counts as left out")
        return DEFAULTS[self.tool].get(name)

    def put(self, theirs: str, key: str, value: Any) -> None:
        self.tree[key] = value
        is_carried = theirs in self.theirs and theirs not in self.lost_keys
        self.key_pairs.append((theirs if is_carried else f"{theirs} (its default there)", key))

    def drop(self, theirs: str, reason: str) -> None:
        self.used.add(theirs)
        if theirs in self.theirs:
            self.lost_keys[theirs] = reason


def reason(key: str) -> str | None:
    """Why a known key has no counterpart; None for one that is not known."""
    starts = [start for start in REASONS if key.startswith(start)]
    return REASONS[max(starts, key=len)] if starts else None
