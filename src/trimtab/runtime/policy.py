"""What the reference and train stages share: the pairs as token ids, the model on its device, the reference's key."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from trimtab import store
from trimtab.config import Config, Switch, to_json
from trimtab.engine import identity, memory, models, quantized, recompute
from trimtab.engine.packing import Group
from trimtab.engine.reference import ReferenceKey
from trimtab.engine.scoring import Scorer
from trimtab.objectives import Objective
from trimtab.records import TokenPair, digest
from trimtab.runtime.folder import Folder
from trimtab.runtime.inputs import EMBEDDED, model_folder


def read_pairs(path: Path) -> list[TokenPair]:
    """Token pairs as `prepare` wrote them."""
    return [TokenPair.from_json(row) for row in store.iter_jsonl(path)]


def require_extras(config: Config) -> None:
    """Raises UserError where the configuration asks for an extra that is not installed, before any work is done."""
    if config.train.optimizer == "adamw_8bit" or config.adapter.quantize != "none":
        quantized.library()


def use_threads(config: Config) -> int:
    """CPU threads of this process from here on: as configured, else all that it may run on."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if config.engine.threads is None and "OMP_NUM_THREADS" in os.environ:
        return torch.get_num_threads()  # set by whoever shares this machine out
    threads = config.engine.threads or allowed
    torch.set_num_threads(threads)
    return threads


def load(config: Config) -> models.Loaded:
    """The unaligned model as configured, in eval mode on its device."""
    loaded = models.load(
        str(model_folder(config)),
        dtype=config.engine.dtype,
        device=config.engine.device,
        trust_remote_code=config.model.trust_remote_code,
        offline=config.offline,
    )
    if config.model.name != EMBEDDED and not Path(config.model.name).is_dir():
        loaded.model.name_or_path = config.model.name  # a saved adapter names the Hub model, not this machine's cache
    if config.adapter.quantize != "none":
        quantized.quantize(loaded.model)
    return loaded


def reference_key(config: Config, folder: Folder) -> ReferenceKey:
    """All that a reference log-probability depends on, found without loading the model."""
    model = identity.identify(str(model_folder(config)), offline=config.offline)
    device = models.pick_device(config.engine.device)
    audit = store.read_json(folder.require(folder.data / "audit.json", "prepare"))
    return ReferenceKey(
        weights=model.weights,
        adapter=model.adapter,
        tokenizer=f"{model.tokenizer}/{audit['template']}",
        truncation=(config.data.max_prompt_tokens, config.data.max_response_tokens),
        dtype=str(models.pick_dtype(config.engine.dtype, device)).removeprefix("torch."),
        device=device.type,
        packed=config.engine.packed != "off",
        quantized=None if config.adapter.quantize == "none" else config.adapter.quantize,
    )


def fit(config: Config, *, pairs: Sequence[TokenPair]) -> memory.Fit:
    """Tokens a pack and checkpointing: as configured, else as the free memory wants it."""
    told = shape(config)
    device = models.pick_device(config.engine.device)
    wanted = config.engine.checkpointing
    if wanted == "auto" and not told.layers_rerun:
        wanted = "off"

    def predicted(pack_tokens: int, checkpointing: recompute.Mode) -> memory.Prediction:
        return predict(
            config, told, pack_tokens=pack_tokens, pairs=pairs, response_share=1.0, checkpointing=checkpointing
        )

    return memory.fit(
        predicted,
        device=device,
        longest_group=max(pair.n_tokens for pair in pairs),
        pack_tokens=config.engine.pack_tokens,
        checkpointing=None if wanted == "auto" else wanted,
    )


def predict(
    config: Config,
    shape: memory.Shape,
    *,
    pack_tokens: int,
    pairs: Sequence[TokenPair],
    response_share: float,
    checkpointing: recompute.Mode,
    base: int = 0,
) -> memory.Prediction:
    """`memory.predict` of this configuration."""
    device = models.pick_device(config.engine.device)
    return memory.predict(
        shape,
        dtype=models.pick_dtype(config.engine.dtype, device),
        device=device,
        pack_tokens=pack_tokens,
        response_share=response_share,
        base=base,
        longest_sequence=longest_sequence(pairs),
        checkpointing=checkpointing,
        eight_bit=config.train.optimizer == "adamw_8bit",
    )


def pack_tokens(config: Config, *, pairs: Sequence[TokenPair]) -> int:
    """Tokens a pack: as configured, else what the free memory holds."""
    return config.engine.pack_tokens or fit(config, pairs=pairs).pack_tokens


def scorer(model: Any, *, packed: Switch, checkpointing: recompute.Mode, pairs: Sequence[TokenPair]) -> Scorer:
    """A scorer that has checked itself on the first of `pairs` and goes about memory as `checkpointing` says."""
    made = Scorer(model, packed=packed, checkpointing=checkpointing)
    made.prepare([Group.of_pair(pair, 0) for pair in pairs[:3]])
    return made


def longest_sequence(pairs: Sequence[TokenPair]) -> int:
    """Tokens of the longest prompt with one response."""
    return max(len(p.prompt_ids) + max(len(p.chosen_ids), len(p.rejected_ids)) for p in pairs)


def shape(config: Config) -> memory.Shape:
    """The model with its adapter, as far as memory and time go; no weights are read."""
    return memory.Shape.of_folder(
        model_folder(config),
        lora=lora_options(config),
        freeze_embeddings=config.train.freeze_embeddings,
        quantize=config.adapter.quantize != "none",
        trust_remote_code=config.model.trust_remote_code,
    )


def lora_options(config: Config) -> dict[str, Any] | None:
    """Keywords of `models.attach_lora`; None for full fine-tuning."""
    told = config.adapter
    if told.kind == "none":
        return None
    return {
        "rank": told.rank,
        "alpha": told.alpha,
        "dropout": told.dropout,
        "targets": told.targets,
        "dora": told.dora,
        "seed": config.seed,
    }


def identity_of(config: Config, folder: Folder, objective: Objective) -> dict[str, Any]:
    """All that a trajectory depends on, key by key. What changes only its cost, or its rounding, is left out."""
    tree = to_json(config)
    key = reference_key(config, folder)
    return {
        "model": key.digest,
        "data": digest([store.file_digest(folder.data / name) for name in ("train.jsonl", "heldout.jsonl")]),
        "seed": config.seed,
        "engine.dtype": key.dtype,
        "engine.shrinking": config.engine.shrinking,
        "objective": objective.name,
        **{f"objective.{name}": value for name, value in objective.parameters().items()},
        **{f"adapter.{name}": value for name, value in tree["adapter"].items()},
        **{f"train.{k}": value for k, value in tree["train"].items() if k not in {"save_every", "keep_checkpoints"}},
    }
