"""The sections of a configuration: every key with its default, its bounds and its meaning. What they mean for each
other is in `rules`."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, SerializeAsAny, field_validator, model_validator

from trimtab.config.evaluation_sections import BenchmarkSection, GenerateSection, JudgeSection
from trimtab.config.section import OnOff, Section, Switch
from trimtab.config.track_section import TrackSection
from trimtab.errors import ConfigError
from trimtab.objectives.objective import Objective


class ModelSection(Section):
    name: str = Field(
        description="a Hub id, a local transformers folder, a .gguf file, or `windtunnel` for the embedded model"
    )
    gguf: str | None = Field(None, description="name of the GGUF file in that folder or Hub model; it is dequantised")
    revision: str | None = Field(None, description="Hub revision (branch, tag or commit)")
    reference: str | None = Field(
        None,
        description="the frozen reference, where it is not the model before training: a Hub id, a folder, a GGUF file",
    )
    template: Literal["chatml", "plain", "instruction"] | None = Field(
        None, description="a built-in chat template, for a base model that has none; saved with the aligned model"
    )
    trust_remote_code: bool = Field(False, description="run Python that the model's author put beside the weights")


class DataSection(Section):
    source: str | tuple[str, ...] | dict[str, float] = Field(
        description="a JSONL/JSON/CSV/Parquet file, a saved dataset, a Hub id, or `windtunnel`; several with commas, "
        "with the shares of pairs to expect of each: a.jsonl:2,b.jsonl:1"
    )
    split: str = Field("train", description="split of a Hub or saved dataset")
    columns: dict[str, str] | None = Field(None, description="prompt=…,chosen=…,rejected=… when the names are others")
    pairs: Literal["all", "best_worst", "adjacent"] | None = Field(
        None,
        description="of several scored responses to a prompt: which two are a pair; by default all, and for "
        "unpaired objectives the best and the worst",
    )
    least_gap: float | None = Field(None, ge=0, description="of scores: nearer ones are ties, and no pair")
    limit: int | None = Field(
        None,
        ge=1,
        description="read only N rows, of all sources together; of a prompt whose responses are "
        "rows of their own all or none",
    )
    sample: Literal["random", "first"] = Field(
        "random", description="which rows limit leaves: drawn from the whole source with data.seed, or the first"
    )
    seed: int = Field(0, ge=0, description="of the rows that are drawn; the same for every training seed")
    eval: str | None = Field(
        None, description="a file, saved dataset or Hub id of pairs to hold out, in place of a share of the prompts"
    )
    eval_split: str | None = Field(None, description="split of data.eval, where that has several")
    holdout: float = Field(0.05, ge=0, lt=1, description="share of prompts kept out of training, for reward accuracy")
    max_prompt_tokens: int = Field(512, ge=8, description="longer prompts lose their oldest whole messages")
    max_response_tokens: int = Field(512, ge=1, description="longer responses are cut, each on its own")
    min_response_tokens: int = Field(1, ge=1, description="a response cut below this is a bad row")
    max_rejected: float = Field(
        0.05, ge=0, le=1, description="refuse to start when more than this share of rows is bad"
    )

    @field_validator("source")
    @classmethod
    def _names_sources(cls, value: Any) -> Any:
        names = [value] if isinstance(value, str) else [*value]
        if not names or not all(names):
            raise ValueError("a source of pairs has a name")
        if len(set(names)) < len(names):
            raise ValueError("a source is named twice")
        if len(names) > 1 and "windtunnel" in names:
            raise ValueError("the embedded world's pairs stand alone")
        if isinstance(value, dict) and min(value.values()) <= 0:
            raise ValueError("a weight is above 0")
        return value

    @property
    def sources(self) -> dict[str, float | None]:
        """Every source with its weight; None where none has one."""
        match self.source:
            case str() as name:
                return {name: None}
            case dict() as weights:
                return dict(weights)
            case names:
                return dict.fromkeys(names)

    @property
    def label(self) -> str:
        """The sources in words."""
        return ", ".join(
            name if weight is None else f"{name} (weight {weight:g})" for name, weight in self.sources.items()
        )

    @property
    def eval_label(self) -> str | None:
        """The held-out set in words, with its split where that is named; None without one."""
        return self.eval if self.eval is None or self.eval_split is None else f"{self.eval}[{self.eval_split}]"

    @property
    def draw_seed(self) -> int | None:
        """With which `limit` rows are drawn; None where they are the first."""
        return None if self.sample == "first" else self.seed


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

    name: str = Field(
        "apo_hinge_zero",
        description="which loss; `trimtab objectives` lists them with their formulas; `apo_zero:1,sft:0.2` is a "
        "weighted sum",
    )
    beta: float | None = Field(None, description="reward a nat of log-ratio; larger keeps the model nearer to itself")
    margin: float | None = Field(None, description="reward, or gap of rewards, from which a hinge has no gradient")
    temperature: float | None = Field(None, description="width of the softplus in place of a hinge")
    delta: float | None = Field(None, description="loss below which margin_sigmoid has no gradient")
    delta_warmup: float | None = Field(None, description="epochs over which delta rises from zero")
    penalty: float | None = Field(None, description="of dpop: weight of a chosen response's fall below the reference")
    label_smoothing: float | None = Field(None, description="share of labels taken to be wrong")
    weight_cap: float | None = Field(None, description="of wpo: largest weight of a pair; 1 in the authors' code")
    alpha: float | None = Field(None, description="of odpo: reward gap wanted for each e-fold of the score gap")
    desirable_weight: float | None = Field(None, description="of unpaired objectives: weight of a good response's loss")
    undesirable_weight: float | None = Field(None, description="the same of a bad response")
    gamma: float | None = Field(None, description="margin of the mean log-probs, of reference-free objectives")
    length_normalize: bool | None = Field(None, description="divide each log-ratio by its response's length")
    ld_alpha: float | None = Field(
        None, description="LD-DPO: weight of the tokens beyond the shorter response's length"
    )
    sft_weight: float | None = Field(None, description="weight of the chosen response's mean cross-entropy added")

    @model_validator(mode="after")
    def _applies(self) -> ObjectiveSection:
        self.value()
        return self

    def parameters(self) -> dict[str, Any]:
        """What the user set, by name."""
        return {name: value for name, value in self if name != "name" and value is not None}

    def value(self) -> Objective:
        """The objective. Raises ConfigError for an unknown name, or a parameter that does not apply."""
        from trimtab import objectives

        return objectives.make(self.name, **self.parameters())


Plain = float | bool | str | None


class PythonObjectiveSection(ObjectiveSection):
    """An objective of a Python program's own, and what of it a file can say. Only that program can train with it."""

    python_class: str
    values: dict[str, Plain]
    _objective: Objective = PrivateAttr()

    @classmethod
    def of(cls, objective: Objective) -> PythonObjectiveSection:
        """Raises ConfigError for a value that may change while it trains, or that config.json cannot hold."""
        kind = type(objective)
        values = objective.parameters()
        parameters = getattr(kind, "__dataclass_params__", None)
        if parameters is None or not parameters.frozen:
            raise ConfigError(
                f"objective {objective.name} is not a frozen dataclass, so it could change while it trains",
                remedy=f"write @dataclass(frozen=True) above class {kind.__name__}",
            )
        for name, value in values.items():
            if not isinstance(value, Plain):
                raise ConfigError(
                    f"objective {objective.name}: {name} is a {type(value).__name__}, which config.json cannot hold",
                    remedy="parameters are numbers, texts, yes or no, or None",
                )
        section = cls(name=objective.name, python_class=f"{kind.__module__}.{kind.__qualname__}", values=values)
        section._objective = objective  # pydantic's private attribute, which its constructor cannot take
        return section

    @model_validator(mode="after")
    def _applies(self) -> PythonObjectiveSection:
        return self

    def value(self) -> Objective:
        return self._objective


class AdapterSection(Section):
    kind: Literal["none", "lora"] = Field("none", description="full fine-tuning, or a LoRA adapter")
    rank: int = Field(16, ge=1, description="rank of the adapter's two factors")
    alpha: float = Field(32.0, gt=0, description="the adapter is scaled by alpha over rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="of the adapter's input; with it nothing can be screened")
    targets: str | tuple[str, ...] = Field(
        "all-linear", description="modules: all-linear, names such as q_proj,v_proj, or a regular expression"
    )
    dora: bool = Field(False, description="DoRA: learn the norm of each row of weights beside its direction")
    quantize: Literal["none", "nf4"] = Field(
        "none", description="nf4 (QLoRA): the frozen matrices in 4 bit; needs pip install trimtab[qlora]"
    )

    @field_validator("kind", mode="before")
    @classmethod
    def _as_keys(cls, value: Any) -> Any:
        """The names of two methods that are other keys here."""
        match str(value).lower():
            case "qlora":
                raise ValueError("that is a LoRA adapter on 4-bit weights: write --adapter lora --adapter.quantize nf4")
            case "dora":
                raise ValueError("that is a kind of LoRA adapter: write --adapter lora --adapter.dora")
            case _:
                return value

    @field_validator("targets", mode="before")
    @classmethod
    def _as_names(cls, value: Any) -> Any:
        """`q_proj,v_proj` is a list of names; PEFT takes a text as a regular expression, which matches whole paths."""
        is_names = (
            isinstance(value, str) and value != "all-linear" and re.fullmatch(r"[\w.\-]+(\s*,\s*[\w.\-]+)*", value)
        )
        return [name.strip() for name in value.split(",")] if is_names else value


class TrainSection(Section):
    epochs: float = Field(1.0, gt=0, description="passes over the pairs; .5 is half of one")
    max_steps: int | None = Field(None, ge=1, description="stop after N optimizer steps")
    max_minutes: float | None = Field(
        None, gt=0, description="end training after so many minutes of steps, with a model; the rate is not rescheduled"
    )
    batch_pairs: int = Field(16, ge=1, description="pairs an optimizer step")
    group_by: Literal["auto", "prompt", "none"] = Field(
        "auto",
        description="prompt: pairs of a prompt go into one batch, as many as it holds, and what they share is computed "
        "once; auto: where that saves a quarter of the tokens",
    )
    learning_rate: float | None = Field(None, gt=0, description="default 1e-5 full, 1e-4 with an adapter")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "linear", description="how the learning rate falls after the warm-up"
    )
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps over which the rate rises from zero")
    weight_decay: float = Field(0.0, ge=0, description="decoupled, as in AdamW")
    max_grad_norm: float = Field(1.0, gt=0, description="larger gradients are scaled down to this norm")
    optimizer: Literal["adamw", "adamw_8bit"] = Field(
        "adamw", description="adamw_8bit: moments in 2 bytes a weight for 8, rounded; needs pip install trimtab[qlora]"
    )
    freeze_embeddings: bool = Field(
        False,
        description="input embedding and a head tied to it learn nothing: 12 bytes less for each of their weights, "
        "but the best reachable loss is another one",
    )
    save_every: int | None = Field(None, ge=1, description="steps between checkpoints; default ten a run")
    keep_checkpoints: int = Field(
        2,
        ge=2,
        description="how many of the newest checkpoints stay while it trains; after its success one does, or, of more "
        "than two, all",
    )


class SelectSection(Section):
    """Which of the weights that training went through end up in `model/`."""

    by: Literal["held_out", "last"] = Field(
        "held_out",
        description="held_out: the last step, unless an earlier milestone is distinguishably better on the held-out "
        "pairs; last: the last step in any case",
    )
    keep: bool = Field(False, description="keep every milestone's weights in milestones/")


class EngineSection(Section):
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="auto: the fastest there is")
    dtype: Literal["auto", "float32", "mixed", "bfloat16", "float16"] = Field(
        "auto",
        description="mixed: fp32 but for the matrix products, which are of bfloat16 numbers; bfloat16: weights too; "
        "float16: as mixed, for GPUs without units for bfloat16; "
        "auto: the fastest whose noise, measured on the model, does not matter to the objective",
    )
    threads: int | None = Field(None, ge=1, description="CPU threads; default all that this process may use")
    processes: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        "auto",
        description="that train together, started by `trimtab run` and `train` themselves: a number, or auto: one for "
        "each GPU, one on a CPU; torchrun and its like may start them instead",
    )
    shard: Literal["none", "optimizer", "gradients"] = Field(
        "none",
        description="what several processes divide among them: nothing, the optimizer's moments, or gradients and "
        "weights between steps too",
    )
    timeout: float = Field(1800.0, gt=0, description="seconds that processes wait for each other in a step")
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
    shrinking: OnOff = Field(
        "off", description="approximate: pass over responses far inside the dead zone; what that missed is reported"
    )


class Sections(Section):
    """Every key of a run, each valid by itself; `Config` adds what they mean for each other (`rules`)."""

    model: ModelSection
    data: DataSection
    objective: SerializeAsAny[ObjectiveSection] = ObjectiveSection()
    adapter: AdapterSection = AdapterSection()
    train: TrainSection = TrainSection()
    select: SelectSection = SelectSection()
    engine: EngineSection = EngineSection()
    generate: GenerateSection = GenerateSection()
    benchmark: BenchmarkSection = BenchmarkSection()
    judge: JudgeSection = JudgeSection()
    windtunnel: WindTunnelSection = WindTunnelSection()
    track: TrackSection = TrackSection()
    seed: int = Field(0, ge=0, description="seed of the order of pairs, of dropout and of a fresh adapter")
    seeds: int = Field(1, ge=1, description="repeat training with seeds seed, seed+1, … and pool the results")
    out: str = Field("", description="the run folder; default runs/<model>-<objective>-<digest of the configuration>")
    offline: bool = Field(False, description="never reach for the Hub")
    base_url: str | None = Field(
        None,
        description="server of an openai: judge or sampler, such as http://127.0.0.1:8000/v1; default OpenAI's own",
    )
