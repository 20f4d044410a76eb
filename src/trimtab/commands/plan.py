"""What a run will do and need, said before anything is written: pairs, steps, tokens, memory, time, disk.

Lengths come from the data themselves: from all of them, or, of a long source, from rows drawn from it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from trimtab import windtunnel
from trimtab.analysis.outlook import Outlook
from trimtab.disk import size
from trimtab.engine import communication, kl, memory, recompute
from trimtab.engine.adapter_reach import AdapterReach
from trimtab.engine.communication import ProcessPlan
from trimtab.engine.gguf_file import GgufSource
from trimtab.objectives import Objective
from trimtab.progress import Reporter, SilentReporter
from trimtab.records import TokenPair, digest
from trimtab.reporting.text import duration
from trimtab.runtime import memory_fit
from trimtab.runtime.disk_use import DiskUse, disk_use
from trimtab.runtime.memory_fit import Leaner
from trimtab.runtime.outlook_words import heading
from trimtab.runtime.run_setup import RunSetup
from trimtab.runtime.training_plan import TrainPlan, training_plan
from trimtab.stages import prepare, reference
from trimtab.stages.reference import ReferencePlan

SAMPLE_ROWS = 1000  # tokenised for an estimate
EMBEDDED_WHOLE = 2048  # up to so many pairs are all sampled: the run finds their answers in the cache
EMBEDDED_SAMPLE = 64  # else so many are, for an estimate


def inputs_digest(inputs: prepare.Inputs) -> str:
    """Names what a plan is made from beside the configuration: the rows, the model, the benchmark's prompts."""
    return digest([inputs.digest, inputs.weights])


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """Device, packs, and the predictions of `engine.memory`, in bytes and seconds."""

    device: str
    dtype: str
    dtype_is_open: bool  # taken if its noise is found harmless when the run begins, by `engine.dtype auto`
    threads: int
    pack_tokens: int
    checkpointing: recompute.Mode
    attention: str
    parameters: int
    trainable: int
    adapter: AdapterReach | None
    predicted_peak_bytes: int
    predicted_training_seconds: float
    leaner: Leaner | None  # half of the memory, if that can be had
    processes: ProcessPlan | None  # of several processes, where `engine.processes` is a number

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"adapter": None if self.adapter is None else self.adapter.to_json()}


@dataclass(frozen=True, slots=True)
class MilestonePlan:
    """What looking at the held-out pairs takes beside training, and the bytes that weights take until the pick."""

    steps: tuple[int, ...]
    share_of_training: float
    disk_bytes: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"steps": list(self.steps)}


@dataclass(frozen=True, slots=True)
class Plan:
    """Every derived number of a run, as kept in `plan.json`; of one seed where there are several.

    `lengths_from`: rows that lengths were taken from, of all `rows`. `milestones` is None without held-out pairs,
    `gguf` where the model came from no GGUF file.
    """

    rows: int
    lengths_from: int
    heldout_pairs: int
    leaked_pairs: int
    evaluation: str | None
    warning: str | None
    gguf: GgufSource | None
    objective: Objective
    step_zero: float | None
    train: TrainPlan
    reference: ReferencePlan
    engine: EnginePlan
    milestones: MilestonePlan | None
    disk: DiskUse
    benchmark: str | None
    benchmark_prompts: int
    judge: str
    select: str
    seeds: int
    out: str
    outlook: Outlook | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "lengths_from": self.lengths_from,
            "heldout_pairs": self.heldout_pairs,
            "leaked_pairs": self.leaked_pairs,
            "evaluation": self.evaluation,
            "warning": self.warning,
            "gguf": None if self.gguf is None else self.gguf.to_json(),
            "objective": {"name": self.objective.name} | self.objective.parameters(),
            "step_zero_loss": self.step_zero,
            "notices": list(self.objective.notices()),
            "train": self.train.to_json(),
            "reference": asdict(self.reference),
            "engine": self.engine.to_json(),
            "milestones": None if self.milestones is None else self.milestones.to_json(),
            "disk": self.disk.to_json(),
            "benchmark": self.benchmark,
            "benchmark_prompts": self.benchmark_prompts,
            "judge": self.judge,
            "select": self.select,
            "seeds": self.seeds,
            "out": self.out,
        } | ({} if self.outlook is None else {"outlook": self.outlook.to_json()})


def plan(setup: RunSetup, *, reporter: Reporter) -> Plan:
    """Looks at the data and the model's configuration. Raises what the run itself would refuse."""
    reference.require(setup)
    config = setup.config
    rows = prepare.count(setup)
    # only sampling takes long enough to be shown
    sampling_reporter = reporter if config.data.source == windtunnel.NAME else SilentReporter()
    limit = _sample_size(setup, rows)
    sample, n_read = prepare.prepare(setup, reporter=sampling_reporter, limit=limit), prepare.count(setup, limit=limit)
    training, heldout = sample.train, sample.heldout
    scale = rows / max(1, n_read)
    # lengths repeat those of the sample; exact when that is everything
    pairs = list(itertools.islice(_repeated(training), max(1, round(len(training) * scale))))
    train_plan = training_plan(setup, pairs)
    disk = disk_use(setup, pairs=pairs, n_heldout=len(heldout))
    heldout_scale = scale if config.data.eval is None else 1.0  # such a set is read whole
    heldout_rows = [*heldout, *kl.rows_for(setup.objective, heldout)]
    heldout_tokens = heldout_scale * sum(row.n_tokens for row in heldout_rows)
    return Plan(
        rows=rows,
        lengths_from=n_read,
        heldout_pairs=round(len(heldout) * heldout_scale),
        leaked_pairs=round(sample.counts.leaked * scale),
        evaluation=config.data.eval_label,
        warning=sample.counts.warning if n_read >= rows else None,
        gguf=setup.gguf_source,
        objective=setup.objective,
        step_zero=setup.objective.step_zero() if setup.begins_at_reference else None,
        train=train_plan,
        reference=reference.plan(setup, pairs),
        engine=_engine(setup, pairs, train_plan),
        milestones=_milestones(train_plan, heldout_tokens=heldout_tokens, disk_bytes=disk.milestones),
        disk=disk,
        benchmark=setup.benchmark_name,
        benchmark_prompts=len(setup.benchmark.prompts) if setup.benchmark_name else 0,
        judge=config.judge.name,
        select=config.select.by,
        seeds=config.seeds,
        out=str(setup.folder.root),
    )


def _repeated(pairs: Sequence[TokenPair]) -> Iterator[TokenPair]:
    """These pairs, and then again and again under prompts of their own: what is not known to be shared is not."""
    for copy in itertools.count():
        for pair in pairs:
            yield pair if copy == 0 else replace(pair, prompt_ids=(-copy, *pair.prompt_ids[1:]))


def _sample_size(setup: RunSetup, rows: int) -> int:
    """How many of the rows lengths are taken from."""
    if setup.config.data.source != windtunnel.NAME:
        return SAMPLE_ROWS
    return rows if rows <= EMBEDDED_WHOLE else EMBEDDED_SAMPLE


def _engine(setup: RunSetup, pairs: Sequence[TokenPair], train_plan: TrainPlan) -> EnginePlan:
    setup.use_threads()  # before the speed is measured
    device, dtype, shape = setup.device, setup.dtype, setup.memory_shape
    is_settled = setup.folder.precision.is_file()
    fit = memory_fit.fit(setup, pairs=pairs)
    response_share = train_plan.response_tokens_per_epoch / max(1, train_plan.tokens_per_epoch)
    whole_batch = memory_fit.rectangle(setup, pairs) if memory_fit.is_padded(setup) else train_plan.largest_batch_tokens
    base = memory.held_bytes() if device.type != "cuda" else 0
    prediction = memory_fit.predict(
        setup,
        pack_tokens=min(fit.pack_tokens, whole_batch),
        pairs=pairs,
        response_share=response_share,
        checkpointing=fit.checkpointing,
        base=base,
    )
    computed = memory_fit.computed_tokens(setup, pack_tokens=fit.pack_tokens, pairs=pairs)
    seconds = memory.seconds(
        shape,
        tokens=int(_trained_tokens(train_plan) * computed / max(1, train_plan.tokens_per_epoch)),
        forward_tokens=int(_kl_tokens(train_plan)),
        response_share=response_share,
        speed=memory.matmul_speed(device, dtype),
        checkpointing=fit.checkpointing,
    )
    return EnginePlan(
        device=device.type,
        dtype=setup.precision,
        dtype_is_open=setup.precision != "float32" and setup.config.engine.dtype == "auto" and not is_settled,
        threads=setup.threads,
        pack_tokens=fit.pack_tokens,
        checkpointing=fit.checkpointing,
        attention=_attention(setup),
        parameters=shape.parameters,
        trainable=shape.trainable,
        adapter=shape.reach,
        predicted_peak_bytes=prediction.peak,
        predicted_training_seconds=seconds,
        leaner=memory_fit.leaner(
            setup, fit, pairs=pairs, response_share=response_share, base=base, peak=prediction.peak
        ),
        processes=_process_plan(
            setup,
            prediction,
            tokens_a_step=(_trained_tokens(train_plan) + _kl_tokens(train_plan)) / train_plan.steps,
            alone=seconds,
        ),
    )


def _process_plan(
    setup: RunSetup, prediction: memory.Prediction, *, tokens_a_step: float, alone: float
) -> ProcessPlan | None:
    """What each of several processes does; None for one. `alone`: seconds of training by one."""
    engine, trainable = setup.config.engine, setup.memory_shape.trainable
    size = engine.processes
    if size == "auto" or size < 2:
        return None
    weights = trainable * (4 if setup.config.adapter.kind == "lora" else setup.dtype.itemsize)
    relief = communication.saved_bytes(
        engine.shard, optimizer=prediction.optimizer, gradients=prediction.gradients, weights=weights, size=size
    )
    gradients = prediction.gradients if engine.shard == "gradients" else 4 * trainable  # an all-reduce is in fp32
    traffic = communication.sent_bytes(engine.shard, gradients=gradients, weights=weights, size=size)
    return ProcessPlan(size, engine.shard, tokens_a_step / size, traffic, prediction.peak - relief, alone / size)


def _trained_tokens(train_plan: TrainPlan) -> float:
    return train_plan.tokens_per_epoch * train_plan.pairs_seen / max(1, train_plan.pairs)


def _kl_tokens(train_plan: TrainPlan) -> float:
    return train_plan.kl_tokens_per_epoch * train_plan.pairs_seen / max(1, train_plan.pairs)


def _milestones(train_plan: TrainPlan, *, heldout_tokens: float, disk_bytes: int) -> MilestonePlan | None:
    if heldout_tokens == 0:
        return None
    steps = train_plan.milestones
    # forward passes: a third of a step's work a token
    share = len(steps) * heldout_tokens / (3 * _trained_tokens(train_plan) + _kl_tokens(train_plan))
    return MilestonePlan(steps, share, disk_bytes)


def _attention(setup: RunSetup) -> str:
    """What will compute attention, if the run's self-check finds nothing against it."""
    if memory_fit.is_padded(setup):
        return "the model's own"
    from trimtab.engine.attention import ways_for  # with transformers behind it

    return ways_for(setup.device, setup.dtype)[0].name


# --- for a terminal --------------------------------------------------------------------------------------------------

_GROUPED = "batches    pairs of a prompt together; what they share is computed once"
_KL = "tokens an epoch more, in forward passes alone: other prompts' completions, for the objective's KL term"
_CHECKPOINTING = {
    "off": "",
    "selective": ", layers but for their matrix products computed twice to save memory",
    "on": ", layers computed twice to save memory",
}


def lines(plan: Plan) -> list[str]:
    """The plan for a terminal."""
    steps, engine, objective = plan.train, plan.engine, plan.objective
    exact = plan.lengths_from >= plan.rows
    about, origin = ("", "") if exact else ("about ", f", from {plan.lengths_from:,} of {plan.rows:,} rows")
    held_apart = (
        "" if plan.evaluation is None else f" ({plan.evaluation}; {plan.leaked_pairs:,} with its prompts left out)"
    )
    benchmark = f"{plan.benchmark}, {plan.benchmark_prompts} prompts" if plan.benchmark else "none"
    parameters = ", ".join(f"{name}={value}" for name, value in objective.parameters().items() if value is not None)
    constant = "depends on the data" if plan.step_zero is None else f"{plan.step_zero:.6g}"
    each_seed = f" for each of {plan.seeds} seeds" if plan.seeds > 1 else ""
    return [
        f"model      {engine.parameters:,} parameters, {engine.trainable:,} of them trained",
        *([] if plan.gguf is None else [f"weights    {plan.gguf.sentence}"]),
        *([] if engine.adapter is None else [f"adapter    {engine.adapter.sentence}"]),
        f"pairs      {about}{steps.pairs:,} to train on, {plan.heldout_pairs:,} held out{held_apart}{origin}",
        f"objective  {objective.name}({parameters}), loss before the first step {constant}",
        f"steps      {about}{steps.steps:,} of up to {-(-steps.pairs // steps.steps_per_epoch)} pairs, "
        f"{steps.tokens_per_epoch:,} tokens an epoch, learning rate {steps.learning_rate:g}",
        *([] if steps.group_by == "none" else [_GROUPED]),
        *([] if steps.kl_tokens_per_epoch == 0 else [f"kl         {steps.kl_tokens_per_epoch:,} {_KL}"]),
        f"engine     {engine.device}, {engine.dtype}"
        f"{' (if its noise, measured when the run begins, is harmless)' if engine.dtype_is_open else ''}, "
        f"{engine.threads} thread{'' if engine.threads == 1 else 's'}, "
        f"packs of {engine.pack_tokens:,} tokens{_CHECKPOINTING[engine.checkpointing]}",
        f"attention  {engine.attention}",
        f"predicted  peak memory {engine.predicted_peak_bytes / 1e9:.2f} GB, "
        f"training {duration(engine.predicted_training_seconds)}{each_seed}",
        *_process_lines(engine.processes),
        *_leaner_lines(engine),
        f"disk       {size(plan.disk.peak)} while it trains ({plan.disk.n_checkpoints} checkpoints of "
        f"{size(plan.disk.checkpoint)}), {size(plan.disk.finished)} afterwards{each_seed}",
        _milestone_line(plan),
        f"benchmark  {benchmark}",
        f"judge      {plan.judge}" + ("; --dry-run says what it costs" if plan.judge.startswith("openai:") else ""),
        f"written to {plan.out}",
        *_outlook_lines(plan),
        *([] if plan.warning is None else [f"warning: {plan.warning}"]),
        *(f"note: {notice}" for notice in objective.notices()),
    ]


def _outlook_lines(plan: Plan) -> list[str]:
    if plan.outlook is None:
        return []
    return [f"outlook    {heading(plan.outlook, plan.objective, learning_rate=plan.train.learning_rate)}"]


def _process_lines(process: ProcessPlan | None) -> list[str]:
    if process is None:
        return []
    return [
        f"processes  {process.size}, engine.shard {process.shard}; each: {process.tokens_a_step:,.0f} tokens a step, "
        f"{size(process.bytes_a_step)} sent a step, peak memory {process.peak_bytes / 1e9:.2f} GB; "
        f"training {duration(process.seconds)} and what the links take"
    ]


def _leaner_lines(engine: EnginePlan) -> list[str]:
    way = engine.leaner
    if way is None:
        return []
    amount = "half of it" if way.peak <= engine.predicted_peak_bytes / 2 else "least"
    keys = f"--engine.pack_tokens {way.pack_tokens}"
    if way.checkpointing != engine.checkpointing:
        keys += f" --engine.checkpointing {way.checkpointing}"
    return [f"leaner     {amount}: {way.peak / 1e9:.2f} GB for {way.more_time:.0%} more time ({keys})"]


def _milestone_line(plan: Plan) -> str:
    milestones = plan.milestones
    if milestones is None:
        return "milestones none: no pairs are held out, so the model is that of the last step"
    steps, seconds = milestones.steps, milestones.share_of_training * plan.engine.predicted_training_seconds
    numbers = ", ".join(map(str, steps)) if len(steps) <= 8 else f"{steps[0]}, {steps[1]}, … {steps[-1]}"
    disk = f", {milestones.disk_bytes / 1e6:,.0f} MB on disk" if milestones.disk_bytes else ""
    return f"milestones steps {numbers} ({duration(seconds)} to look at them{disk}); select.by {plan.select}"
