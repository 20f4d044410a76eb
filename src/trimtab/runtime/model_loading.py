"""The unaligned model as configured, its adapter, and a scorer over either that has checked itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trimtab import endpoint, store
from trimtab.config import Config
from trimtab.data.chat import ChatTemplate
from trimtab.engine import models, quantized, recompute, score_head, trainable
from trimtab.engine.packing import Group
from trimtab.engine.scoring import Scorer
from trimtab.records import TokenPair
from trimtab.runtime.run_setup import RunSetup


def require_extras(config: Config) -> None:
    """Raises UserError where the configuration asks for an extra that is not installed, before any work is done."""
    if config.train.optimizer == "adamw_8bit" or config.adapter.quantize != "none":
        quantized.library()
    if config.judge.name.startswith("openai:"):
        endpoint.require_packages(f"the judge {config.judge.name}")
    if config.generate.sampler == "openai":
        endpoint.require_packages("the sampler openai")


def load_reference(setup: RunSetup) -> models.Loaded:
    """The frozen reference, as `load_unaligned`."""
    return load_unaligned(setup) if setup.begins_at_reference else _load(setup, setup.reference_folder, None)


def load_unaligned(setup: RunSetup, *, precision: models.Precision | None = None) -> models.Loaded:
    """The unaligned model, in eval mode on its device; in the run's own precision if none is given."""
    bundle = _load(setup, setup.model_folder, precision)
    bundle.model.name_or_path = _base_name(setup)
    return bundle


def _base_name(setup: RunSetup) -> str:
    """What a saved adapter names as its base: a Hub model by its name, not by this machine's cache; a folder by its
    whole path, which leads there from everywhere."""
    if setup.is_hub_model:
        return setup.config.model.name
    folder = setup.model_folder if setup.config.model.template is None else setup.source_folder  # not that of links
    is_cached = folder.is_relative_to(store.home())  # the cache may be moved, with a link in its place
    return str(folder.absolute() if is_cached else folder.resolve())


def _load(setup: RunSetup, folder: Path, precision: models.Precision | None) -> models.Loaded:
    config = setup.config
    bundle = models.load(
        str(folder),
        dtype=precision or setup.precision,
        device=config.engine.device,
        trust_remote_code=config.model.trust_remote_code,
        offline=config.offline,
    )
    if config.adapter.quantize != "none":
        quantized.quantize(bundle.model)
    return bundle


def load_trainable(setup: RunSetup) -> tuple[Any, Any]:
    """The unaligned model with what of it will learn, and its tokenizer."""
    bundle = load_unaligned(setup)
    models.end_generation_at(bundle.model, chat_template(bundle).stop_ids)  # the saved model says where it ends
    if setup.config.train.freeze_embeddings:
        trainable.freeze_embeddings(bundle.model)
    if setup.objective.on_scores:
        score_head.require_family(bundle.model)
    lora = setup.lora_options
    model = bundle.model if lora is None else trainable.attach_lora(bundle.model, **lora)
    if setup.objective.on_scores:
        score_head.attach(model)
    return model, bundle.tokenizer


def chat_template(bundle: models.Loaded) -> ChatTemplate:
    """What a loaded model sees of a conversation, and where its answers end."""
    return ChatTemplate.of(
        bundle.tokenizer,
        generation_end_ids=bundle.model.generation_config.eos_token_id,
        embedding_rows=bundle.model.get_input_embeddings().weight.shape[0],
    )


def checked_scorer(
    model: Any,
    setup: RunSetup,
    *,
    pairs: Sequence[TokenPair],
    checkpointing: recompute.Mode = "off",
    precision: models.Precision | None = None,
) -> Scorer:
    """A scorer that has checked itself on the first of `pairs` and goes about memory as `checkpointing` says; in the
    run's own precision if none is given."""
    precision = precision or setup.precision
    scorer = Scorer(
        model,
        packed=setup.config.engine.packed,
        checkpointing=checkpointing,
        mixed=precision == "mixed",
        half=precision == "float16",
    )
    scorer.prepare([Group.of_pair(pair, 0) for pair in pairs[:3]])
    if (module := score_head.module_of(model)) is not None:
        scorer.read_scores(module)
    return scorer
