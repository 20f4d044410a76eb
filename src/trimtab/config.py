"""Frozen, strict configuration: `written` reads what people write, the run folder keeps the resolved JSON.

A section given as a bare word sets its main field: `model = "Qwen/Qwen2.5-0.5B-Instruct"`, `--objective dpo`.
No key is accepted and ignored, none edits another. `None` means "decided when the run starts"; `plan` prints what
was decided. Lengths are tokens, sizes bytes, shares are in [0, 1].
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from trimtab.errors import ConfigError
from trimtab.records import digest

# what `run` does when it is told nothing
EMBEDDED_RECIPE = Path(__file__).parent / "windtunnel" / "recipe.toml"

Switch = Literal["auto", "on", "off"]


class Section(BaseModel):
    """Strict and frozen; a typing mistake is an error, not a default."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelSection(Section):
    name: str = Field(description="a Hub id, a local transformers folder, or `windtunnel` for the embedded model")
    revision: str | None = Field(None, description="Hub revision (branch, tag or commit)")
    trust_remote_code: bool = Field(False, description="run Python that the model's author put beside the weights")


class DataSection(Section):
    source: str = Field(description="a JSONL/JSON/CSV/Parquet file, a saved dataset, a Hub id, or `windtunnel`")
    split: str = Field("train", description="split of a Hub or saved dataset")
    columns: dict[str, str] | None = Field(None, description="prompt=…,chosen=…,rejected=… when the names are others")
    limit: int | None = Field(None, ge=1, description="read only the first N rows")
    holdout: float = Field(0.05, ge=0, lt=1, description="share of prompts kept out of training, for reward accuracy")
    max_prompt_tokens: int = Field(512, ge=8, description="longer prompts lose their oldest whole messages")
    max_response_tokens: int = Field(512, ge=1, description="longer responses are cut, each on its own")
    min_response_tokens: int = Field(1, ge=1, description="a response cut below this is a bad row")
    max_rejected: float = Field(
        0.05, ge=0, le=1, description="refuse to start when more than this share of rows is bad"
    )


class WindTunnelSection(Section):
    """The dials of the embedded world; used where data, benchmark or judge is `windtunnel`."""

    pairs: int = Field(1024, ge=8, description="preference pairs sampled from the model itself")
    prompts: int = Field(400, ge=8, description="held-out prompts of the benchmark")
    length_bias: float = Field(0.0, description="λ of the labels: log-odds a word that the longer answer gains")
    label_noise: float = Field(0.0, ge=0, lt=0.5, description="share of labels flipped")
    judge_length_bias: float = Field(0.1, description="λ of the length-biased judge beside the oracle, a word")
    temperature: float = Field(1.0, gt=0, description="temperature at which the pairs are sampled")
    seed: int = Field(0, ge=0, description="the world's own seed: pairs and labels stay the same across run seeds")


class ObjectiveSection(Section):
    """Only the keys that the named objective has may be set; `trimtab objectives` lists them."""

    name: str = "apo_hinge_zero"
    beta: float | None = None
    margin: float | None = None
    temperature: float | None = None
    delta: float | None = None
    delta_warmup: float | None = None
    label_smoothing: float | None = None
    gamma: float | None = None
    length_normalize: bool | None = None
    ld_alpha: float | None = None
    sft_weight: float | None = None

    @model_validator(mode="after")
    def _applies(self) -> ObjectiveSection:
        from trimtab import objectives

        objectives.make(self.name, **self.parameters())
        return self

    def parameters(self) -> dict[str, Any]:
        """What the user set, by name."""
        return {name: value for name, value in self if name != "name" and value is not None}


class AdapterSection(Section):
    kind: Literal["none", "lora"] = Field("none", description="full fine-tuning, or a LoRA adapter")
    rank: int = Field(16, ge=1)
    alpha: float = Field(32.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: str | tuple[str, ...] = Field("all-linear", description="module names, or all-linear")
    dora: bool = False
    quantize: Literal["none", "nf4"] = Field(
        "none", description="nf4 (QLoRA): the frozen matrices in 4 bit; needs pip install trimtab[qlora]"
    )


class TrainSection(Section):
    epochs: float = Field(1.0, gt=0)
    max_steps: int | None = Field(None, ge=1, description="stop after N optimizer steps")
    batch_pairs: int = Field(16, ge=1, description="pairs an optimizer step")
    learning_rate: float | None = Field(None, gt=0, description="default 1e-6 full, 1e-5 with an adapter")
    schedule: Literal["cosine", "linear", "constant"] = "linear"
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps over which the rate rises from zero")
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    optimizer: Literal["adamw", "adamw_8bit"] = Field(
        "adamw", description="adamw_8bit: moments in 2 bytes a weight for 8, rounded; needs pip install trimtab[qlora]"
    )
    freeze_embeddings: bool = Field(
        False,
        description="input embedding and a head tied to it learn nothing: 12 bytes less for each of their weights, "
        "but the best reachable loss is another one",
    )
    save_every: int | None = Field(None, ge=1, description="steps between checkpoints; default ten a run")
    keep_checkpoints: int = Field(2, ge=2)


class EngineSection(Section):
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: int | None = Field(None, ge=1, description="CPU threads; default all that this process may use")
    pack_tokens: int | None = Field(None, ge=16, description="tokens a forward pass; sets the peak of memory")
    checkpointing: Literal["auto", "off", "selective", "on"] = Field(
        "auto",
        description="run layers again in the backward pass to save memory: on, or selective for all but their matrix "
        "products; auto as far as one pack of the longest prompt group needs it",
    )
    packed: Switch = Field("auto", description="prefix-shared packs; auto falls back when the self-check disagrees")
    screening: Switch = Field(
        "auto",
        description="skip the backward pass of responses whose gradient is exactly zero; auto also weighs what the "
        "calls of a further pass cost a small model",
    )
    shrinking: Literal["on", "off"] = Field(
        "off", description="approximate: pass over responses far inside the dead zone; what that missed is reported"
    )

    @field_validator("shrinking", mode="before")
    @classmethod
    def _as_word(cls, value: Any) -> Any:
        return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value


class GenerateSection(Section):
    max_new_tokens: int = Field(512, ge=1)
    temperature: float = Field(0.7, ge=0, description="0 is greedy")
    top_p: float = Field(1.0, gt=0, le=1)
    repetition_penalty: float = Field(1.0, gt=0)
    batch_tokens: int = Field(32_768, ge=1, description="KV-cache positions of one decoding batch")


class BenchmarkSection(Section):
    name: str = Field("none", description="none, windtunnel, or a JSON/JSONL file of prompts")
    limit: int | None = Field(None, ge=1, description="only the first N prompts")


class JudgeSection(Section):
    name: Literal["none", "oracle"] = Field(
        "none", description="none, or oracle (the embedded world's truth, beside judges with and without a length bias)"
    )


_READ_OF_EMBEDDED_DATA = frozenset(
    {"source", "limit", "holdout", "max_prompt_tokens", "max_response_tokens", "min_response_tokens", "max_rejected"}
)


class Config(Section):
    """One run. `trimtab plan` prints everything that follows from it."""

    model: ModelSection
    data: DataSection
    objective: ObjectiveSection = ObjectiveSection()
    adapter: AdapterSection = AdapterSection()
    train: TrainSection = TrainSection()
    engine: EngineSection = EngineSection()
    generate: GenerateSection = GenerateSection()
    benchmark: BenchmarkSection = BenchmarkSection()
    judge: JudgeSection = JudgeSection()
    windtunnel: WindTunnelSection = WindTunnelSection()
    seed: int = Field(0, ge=0, description="seed of the order of pairs, of dropout and of a fresh adapter")
    seeds: int = Field(1, ge=1, description="repeat training with seeds seed, seed+1, … and pool the results")
    out: str = Field("", description="the run folder; default runs/<model>-<objective>-<digest of the configuration>")
    offline: bool = Field(False, description="never reach for the Hub")

    @model_validator(mode="after")
    def _agrees(self) -> Config:
        if self.judge.name == "oracle" and self.benchmark.name != "windtunnel":
            raise ValueError("the oracle can judge only the embedded world: add --benchmark windtunnel or --judge none")
        if self.engine.shrinking == "on" and (why := self._cannot_shrink()):
            raise ValueError(f"engine.shrinking = on has no effect here: {why}")
        if idle := self._idle():
            raise ValueError(f"{idle[0]} has no effect here: {idle[1]}")
        return self

    def _cannot_shrink(self) -> str:
        from trimtab import objectives

        if self.engine.screening == "off":
            return "screening is off"
        if self.adapter.kind != "none" and self.adapter.dropout:
            return "with adapter dropout nothing can be screened"
        objective = objectives.make(self.objective.name, **self.objective.parameters())
        return "" if objective.has_dead_zone else f"{objective.name} has no dead zone"

    def _idle(self) -> tuple[str, str] | None:
        """A key that was set and that nothing in this run would read, and why. Keys at their defaults do not count.

        The sections of stages that are switched off (no benchmark, no judge) may stay in a file.
        """
        embedded = "windtunnel" in (self.data.source, self.benchmark.name)
        unread = (
            ("adapter", self.adapter.kind == "none", frozenset[str](), "the adapter is none"),
            ("windtunnel", not embedded, frozenset[str](), "neither the data nor the benchmark is windtunnel"),
            ("data", self.data.source == "windtunnel", _READ_OF_EMBEDDED_DATA, "the data is windtunnel"),
        )
        if self.adapter.dora and self.adapter.quantize != "none":
            return "adapter.dora", "the norms that it learns cannot be had of 4-bit weights"
        if self.train.freeze_embeddings and self.adapter.kind != "none":
            return "train.freeze_embeddings", "with an adapter the embeddings are frozen anyway"
        for section, holds, read, why in unread:
            held = getattr(self, section)
            for key, field in type(held).model_fields.items():
                if holds and key not in read and not field.is_required() and getattr(held, key) != field.default:
                    return f"{section}.{key}", why
        return None


# what a bare word given for a section means
MAIN_FIELD = {
    "model": "name",
    "data": "source",
    "objective": "name",
    "adapter": "kind",
    "benchmark": "name",
    "judge": "name",
}


def keys() -> dict[str, type[Section]]:
    """Every key a user may set, dotted, with the section that owns it."""
    found: dict[str, type[Section]] = {}
    for name, field in Config.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            found |= {f"{name}.{key}": inner for key in inner.model_fields}
        else:
            found[name] = Config
    return found


def unknown_key(name: str, known: Sequence[str]) -> ConfigError:
    """The error for a key that does not exist, naming the nearest that does."""
    near = get_close_matches(name, known, n=1, cutoff=0.5) or get_close_matches(
        name.rpartition(".")[2], [key.rpartition(".")[2] for key in known], n=1, cutoff=0.5
    )
    full = next((key for key in known if near and key.rpartition(".")[2] == near[0]), near[0] if near else "")
    return ConfigError(
        f"unknown key {name!r}", remedy=f"did you mean {full!r}?" if full else "`trimtab keys` lists them"
    )


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, section by section; a bare word for a section sets its main field."""
    result = {name: _opened(name, value) for name, value in base.items()}
    for name, value in over.items():
        opened = _opened(name, value)
        held = result.get(name)
        result[name] = {**held, **opened} if isinstance(held, dict) and isinstance(opened, dict) else opened
    return result


def _opened(name: str, value: Any) -> Any:
    return {MAIN_FIELD[name]: value} if name in MAIN_FIELD and not isinstance(value, Mapping) else value


def resolve(tree: Mapping[str, Any]) -> Config:
    """The strict configuration, or a `ConfigError` that names the key, the value and the remedy."""
    tree = merge({}, tree)
    _known_only(tree)
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        raise _explained(error) from error
    return config if config.out else config.model_copy(update={"out": _default_out(config)})


def section(kind: type[Section], name: str, tree: Mapping[str, Any]) -> Section:
    """One section on its own, as strictly checked as within a whole configuration."""
    _known_only({name: tree})
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise _explained(error) from error


def _explained(error: ValidationError) -> ConfigError:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return ConfigError(f"{where} is not set", remedy=f"add --{_flag(where)} or write it in the file")
    told = first["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(first["input"], Mapping | BaseModel) else f" = {first['input']!r}"
    return ConfigError(f"{where}{shown}: {told}".lstrip(": "), remedy="`trimtab keys` shows what each key takes")


def _default_out(config: Config) -> str:
    """One folder for each configuration, so that no run overwrites another."""
    model = re.sub(r"[^A-Za-z0-9.-]+", "-", Path(config.model.name).name).strip("-.") or "model"
    return f"runs/{model}-{config.objective.name}-{config_digest(config)[:8]}"


def _known_only(tree: Mapping[str, Any]) -> None:
    known = list(keys())
    for name, value in tree.items():
        if name in Config.model_fields and f"{name}" in known:
            continue
        if name not in Config.model_fields:
            raise unknown_key(name, [*Config.model_fields, *known])
        if not isinstance(value, Mapping):
            raise ConfigError(f"{name} is a section, not a value", remedy=f"write [{name}] and its keys below")
        for key in value:
            if f"{name}.{key}" not in known:
                raise unknown_key(f"{name}.{key}", known)


def _flag(dotted: str) -> str:
    section, _, key = dotted.partition(".")
    return section if not key or MAIN_FIELD.get(section) == key else dotted.replace("_", "-")


def to_json(config: Config) -> dict[str, Any]:
    """The resolved configuration as the run folder keeps it."""
    tree: dict[str, Any] = config.model_dump(mode="json")
    return tree


def config_digest(config: Config, *sections: str) -> str:
    """sha256 of the named sections (all of them when none is named): what an artefact is keyed by."""
    tree = to_json(config)
    return digest({name: tree[name] for name in sections} if sections else tree)


def default_of(dotted: str) -> Any:
    """The default of a key, as text for people."""
    field = keys()[dotted].model_fields[dotted.rpartition(".")[2]]
    return "required" if field.is_required() else field.default
