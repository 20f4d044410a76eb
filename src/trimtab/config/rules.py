"""What sections mean for each other: combinations that cannot run, and keys that nothing would read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from trimtab.config.evaluation_sections import GenerateSection, JudgeSection
from trimtab.config.sections import Sections

_NO_KEY = frozenset[str]()
_READ_OF_EMBEDDED_DATA = frozenset(
    {"source", "limit", "holdout", "max_prompt_tokens", "max_response_tokens", "min_response_tokens", "max_rejected"}
)
_OF_SERVERS = frozenset({"base_url", "served_as", "unaligned_served_as"})
_OF_LOCAL_DECODING = frozenset({"batch_tokens", "repetition_penalty"})
_READ_BY_JUDGE = {
    "openai": frozenset(JudgeSection.model_fields) - {"verifier_seconds"},
    "reward": frozenset({"name", "allow_missing", "canaries"}),
    "verifier": frozenset({"name", "allow_missing", "canaries", "verifier_seconds", "concurrency"}),
    "oracle": frozenset({"name", "canaries"}),
}
_OF_COMPARING = frozenset({"rubric", "both_orders"})  # MT-Bench marks answers one at a time


def disagreement(config: Sections) -> str:
    """Why a configuration cannot be run as it is written; empty when it can."""
    if config.objective.value().on_scores and config.benchmark.name != "none":
        return "a reward model answers nothing: --benchmark none; a later run takes it as --judge reward:FOLDER"
    if config.objective.value().is_unpaired and config.train.group_by == "prompt":
        name = config.objective.name
        return f"train.group_by is prompt, but {name} mixes good and bad rows in every batch: leave it out"
    if reason := _impossible(config):
        return reason
    if config.engine.shard != "none" and config.train.optimizer != "adamw":
        return f"engine.shard = {config.engine.shard} divides torch's own AdamW: use train.optimizer adamw"
    if config.engine.shrinking == "on" and (reason := _cannot_shrink(config)):
        return f"engine.shrinking = on has no effect here: {reason}"
    return next((f"{key} has no effect here: {reason}" for key, reason in _idle(config)), "")


def _impossible(config: Sections) -> str:
    judge, benchmark = config.judge, config.benchmark.name
    for key, url in (("base_url", config.base_url), ("generate.base_url", config.generate.base_url)):
        if url is not None and _holds_secret(url):
            return f"{key} holds a password, a query or a fragment: give the address alone, the key in OPENAI_API_KEY"
    if judge.kind == "oracle" and benchmark != "windtunnel":
        return "the oracle can judge only the embedded world: add --benchmark windtunnel or --judge none"
    if judge.kind in ("reward", "verifier") and benchmark == "mt_bench":
        return "MT-Bench's marks from 1 to 10 need a judge that writes: --judge openai:MODEL"
    if judge.kind not in ("none", "oracle") and benchmark == "none":
        return f"there is nothing for {judge.name} to judge: add --benchmark, or --judge none"
    if benchmark != "none" and config.generate.sampler == "openai" and config.generate.served_as is None:
        return "generate.served_as is not set: the name under which the server has the aligned model"
    return ""


def _holds_secret(url: str) -> bool:
    from trimtab.endpoint.base_url import holds_secret

    return holds_secret(url)


def _cannot_shrink(config: Sections) -> str:
    if config.engine.screening == "off":
        return "screening is off"
    if config.adapter.kind != "none" and config.adapter.dropout:
        return "with adapter dropout nothing can be screened"
    objective = config.objective.value()
    return "" if objective.has_dead_zone else f"{objective.name} has no dead zone"


def _idle(config: Sections) -> Iterator[tuple[str, str]]:
    """Keys that were set and that nothing in this run would read, and reason. Keys at their defaults do not count.

    The sections of stages that are switched off (no benchmark, no judge) may stay in a file.
    """
    judge, sampler, data = config.judge, config.generate.sampler, config.data.source
    marks = config.benchmark.name == "mt_bench"
    yield from _idle_of_model(config)
    if config.model.reference is not None and not config.objective.value().needs_reference:
        yield "model.reference", f"{config.objective.name} compares with no reference"
    if config.base_url is not None and judge.kind != "openai" and sampler != "openai":
        yield "base_url", "neither the judge nor the sampler is openai"
    if config.adapter.dora and config.adapter.quantize != "none":
        yield "adapter.dora", "the norms that it learns cannot be had of 4-bit weights"
    if config.train.freeze_embeddings and config.adapter.kind != "none":
        yield "train.freeze_embeddings", "with an adapter the embeddings are frozen anyway"
    if config.benchmark.dir is not None and config.benchmark.name in ("none", "windtunnel") and judge.kind != "openai":
        yield "benchmark.dir", f"the benchmark is {config.benchmark.name}"
    yield from _idle_sections(config)
    if "windtunnel" not in (data, config.benchmark.name):
        yield from _set(config, "windtunnel", _NO_KEY, "neither the data nor the benchmark is windtunnel")
    if data == "windtunnel":
        yield from _set(config, "data", _READ_OF_EMBEDDED_DATA, "the data is windtunnel")
    local = frozenset(GenerateSection.model_fields) - (_OF_SERVERS if sampler == "local" else _OF_LOCAL_DECODING)
    yield from _set(config, "generate", local, f"the sampler is {sampler}")
    if judge.kind != "none":
        yield from _set(config, "judge", _READ_BY_JUDGE[judge.kind], f"the judge is {judge.name}")
    if marks:
        yield from _set(config, "judge", frozenset(JudgeSection.model_fields) - _OF_COMPARING, "MT-Bench gives marks")


def _idle_of_model(config: Sections) -> Iterator[tuple[str, str]]:
    model = config.model
    is_file = model.name.lower().endswith(".gguf")
    if model.gguf is not None and (is_file or model.name == "windtunnel"):
        yield "model.gguf", f"{model.name} holds no other file"
    if model.trust_remote_code and (is_file or model.gguf is not None):
        yield "model.trust_remote_code", "a GGUF file brings no code"
    if model.revision is not None and (model.name == "windtunnel" or is_file or Path(model.name).exists()):
        yield "model.revision", f"{model.name} is not from the Hub"


def _idle_sections(config: Sections) -> Iterator[tuple[str, str]]:
    if config.adapter.kind == "none":
        yield from _set(config, "adapter", _NO_KEY, "the adapter is none")
    if not config.track.to:
        yield from _set(config, "track", _NO_KEY, "no tracker is named")
    data = config.data
    if data.holdout == 0 and data.eval is None:
        yield from _set(config, "select", _NO_KEY, "data.holdout is 0")
    if data.eval is None:
        yield from _set(config, "data", frozenset(type(data).model_fields) - {"eval_split"}, "data.eval is not set")
    else:
        yield from _set(config, "data", frozenset(type(data).model_fields) - {"holdout"}, "data.eval is held out")
    if data.sample == "first" or (data.limit is None and not isinstance(data.source, dict)):
        yield from _set(config, "data", frozenset(type(data).model_fields) - {"seed"}, "no rows are drawn")
    if data.limit is None and not isinstance(data.source, dict):
        yield from _set(config, "data", frozenset(type(data).model_fields) - {"sample"}, "every row is read")


def _set(config: Sections, section: str, read: frozenset[str], reason: str) -> Iterator[tuple[str, str]]:
    """The keys of a section that are not at their defaults and not among those that are read."""
    values = getattr(config, section)
    for key, field in type(values).model_fields.items():
        if key not in read and not field.is_required() and getattr(values, key) != field.default:
            yield f"{section}.{key}", reason
