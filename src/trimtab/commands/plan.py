"""What a run will do and need, said before anything is written: pairs, steps, tokens, memory, time.

Lengths come from the data themselves: from all of them, or, of a long source, from its first rows.
"""

from __future__ import annotations

from itertools import cycle, islice
from typing import Any

from trimtab import windtunnel
from trimtab.engine import memory
from trimtab.progress import Reporter, SilentReporter, duration
from trimtab.records import TokenPair, digest
from trimtab.runtime import memory_fit
from trimtab.runtime.run_setup import RunSetup
from trimtab.stages import prepare, reference, train

LOOKED_AT = 1000  # rows tokenised for an estimate
EMBEDDED_WHOLE = 2048  # up to so many pairs are all sampled: the run finds their answers in the cache
EMBEDDED_LOOKED_AT = 64  # else so many are, for an estimate


def inputs(setup: RunSetup) -> str:
    """Digest of what a plan is made from beside the configuration: the rows, the model, the benchmark's prompts."""
    return digest([prepare.inputs(setup), setup.model_identity.weights])


def plan(setup: RunSetup, *, reporter: Reporter) -> dict[str, Any]:
    """Every derived number of the run, as kept in `plan.json`. Raises what the run itself would refuse."""
    config, objective = setup.config, setup.objective
    rows = prepare.count(setup)
    embedded = config.data.source == windtunnel.NAME  # only sampling takes long enough to be shown
    looked = prepare.prepare(setup, reporter=reporter if embedded else SilentReporter(), limit=_looked_at(setup, rows))
    prepare.refuse_if_bad(looked.audit, max_rejected=config.data.max_rejected)
    kept, heldout = prepare.split(looked, share=config.data.holdout)
    share = rows / max(1, looked.audit.n_rows)
    # lengths repeat those that were looked at; exact when everything was
    pairs = list(islice(cycle(kept), max(1, round(len(kept) * share))))
    return {
        "rows": rows,
        "lengths_from": looked.audit.n_rows,
        "heldout_pairs": round(len(heldout) * share),
        "objective": {"name": objective.name} | objective.parameters(),
        "step_zero_loss": objective.step_zero(),
        "notices": list(objective.notices()),
        "train": train.plan(setup, pairs).to_json(),
        "reference": reference.plan(setup, pairs),
        "engine": (engine := _engine(setup, pairs)),
        "milestones": _milestones(setup, engine, pairs=pairs, heldout_tokens=share * sum(p.n_tokens for p in heldout)),
        "benchmark": setup.benchmark_name,
        "benchmark_prompts": len(setup.benchmark.prompts) if setup.benchmark_name else 0,
        "judge": config.judge.name,
        "select": config.select.by,
        "seeds": config.seeds,
        "out": str(setup.folder.root),
    }


def _looked_at(setup: RunSetup, rows: int) -> int:
    """How many of the rows lengths are taken from."""
    if setup.config.data.source != windtunnel.NAME:
        return LOOKED_AT
    return rows if rows <= EMBEDDED_WHOLE else EMBEDDED_LOOKED_AT


def _engine(setup: RunSetup, pairs: list[TokenPair]) -> dict[str, Any]:
    """Device, packs, and the predictions of `engine.memory`, in bytes and seconds."""
    device, dtype, shape = setup.device, setup.dtype, setup.memory_shape
    setup.use_threads()
    fit = memory_fit.fit(setup, pairs=pairs)
    tokens = sum(pair.n_tokens for pair in pairs)
    responses = sum(len(pair.chosen_ids) + len(pair.rejected_ids) for pair in pairs) / max(1, tokens)
    seen = train.plan(setup, pairs).to_json()
    longest = memory_fit.longest_sequence(pairs)
    # a padded pack is a rectangle: every response with its prompt, as long as the longest
    batch = 2 * setup.config.train.batch_pairs * longest if shape.eager_heads else seen["largest_batch_tokens"]
    predicted = memory_fit.predict(
        setup,
        pack_tokens=min(fit.pack_tokens, batch),
        pairs=pairs,
        response_share=responses,
        checkpointing=fit.checkpointing,
        base=memory.held_bytes() if device.type != "cuda" else 0,
    )
    trained = tokens * seen["pairs_seen"] / max(1, len(pairs))
    seconds = memory.seconds(
        shape,
        tokens=int(trained),
        response_share=responses,
        speed=memory.matmul_speed(device, dtype),
        checkpointing=fit.checkpointing,
    )
    return {
        "device": device.type,
        "dtype": str(dtype).removeprefix("torch."),
        "threads": setup.threads,
        "pack_tokens": fit.pack_tokens,
        "checkpointing": fit.checkpointing,
        "attention": _attention(setup),
        "parameters": shape.parameters,
        "trainable": shape.trainable,
        "predicted_peak_bytes": predicted.peak,
        "predicted_training_seconds": seconds,
    }


def _milestones(
    setup: RunSetup, engine: dict[str, Any], *, pairs: list[TokenPair], heldout_tokens: float
) -> dict[str, Any] | None:
    """What looking at the held-out pairs takes beside training (forward passes, a third of a step's work a token), and
    the bytes that weights take until the pick; None without held-out pairs."""
    if heldout_tokens == 0:
        return None
    config, seen = setup.config, train.plan(setup, pairs).to_json()
    steps = seen["milestones"]
    trained = seen["tokens_per_epoch"] * seen["pairs_seen"] / max(1, len(pairs))
    weights, width = engine["parameters"], 4 if engine["dtype"] == "float32" else 2
    if config.adapter.kind != "none":
        weights, width = engine["trainable"], 4
    held = len(steps) if config.select.keep else len(steps) - 1 if config.select.by == "held_out" else 0
    return {
        "steps": steps,
        "share_of_training": len(steps) * heldout_tokens / (3 * trained),
        "disk_bytes": weights * width * held,
    }


def _attention(setup: RunSetup) -> str:
    """What will compute attention, if the run's self-check finds nothing against it."""
    if setup.config.engine.packed == "off" or setup.memory_shape.eager_heads:
        return "the model's own"
    from trimtab.engine.attention import ways_for  # with transformers behind it

    return ways_for(setup.device, setup.dtype)[0].name


_CHECKPOINTING = {
    "off": "",
    "selective": ", layers but for their matrix products computed twice to save memory",
    "on": ", layers computed twice to save memory",
}


def lines(told: dict[str, Any]) -> list[str]:
    """The plan for a terminal."""
    steps, engine = told["train"], told["engine"]
    exact = told["lengths_from"] >= told["rows"]
    about, estimated = ("", "") if exact else ("about ", f", from the first {told['lengths_from']:,} rows")
    benchmark_line = f"{told['benchmark']}, {told['benchmark_prompts']} prompts" if told["benchmark"] else "none"
    parameters = ", ".join(f"{k}={v}" for k, v in told["objective"].items() if k != "name" and v is not None)
    return [
        f"model      {engine['parameters']:,} parameters, {engine['trainable']:,} of them trained",
        f"pairs      {about}{steps['pairs']:,} to train on, {told['heldout_pairs']:,} held out{estimated}",
        f"objective  {told['objective']['name']}({parameters}), loss before the first step {_constant(told)}",
        f"steps      {about}{steps['steps']:,} of up to {-(-steps['pairs'] // steps['steps_per_epoch'])} pairs, "
        f"{steps['tokens_per_epoch']:,} tokens an epoch, learning rate {steps['learning_rate']:g}",
        f"engine     {engine['device']}, {engine['dtype']}, {engine['threads']} threads, "
        f"packs of {engine['pack_tokens']:,} tokens{_CHECKPOINTING[engine['checkpointing']]}",
        f"attention  {engine['attention']}",
        f"predicted  peak memory {engine['predicted_peak_bytes'] / 1e9:.2f} GB, "
        f"training {duration(engine['predicted_training_seconds'])}"
        + (f" for each of {told['seeds']} seeds" if told["seeds"] > 1 else ""),
        *_milestone_lines(told),
        f"benchmark  {benchmark_line}",
        f"judge      {told['judge']}"
        + ("; --dry-run says what it costs" if told["judge"].startswith("openai:") else ""),
        f"written to {told['out']}",
        *(f"note: {notice}" for notice in told["notices"]),
    ]


def _milestone_lines(plan: dict[str, Any]) -> list[str]:
    told, by = plan["milestones"], plan["select"]
    if told is None:
        return ["milestones none: no pairs are held out, so the model is that of the last step"]
    steps, seconds = told["steps"], told["share_of_training"] * plan["engine"]["predicted_training_seconds"]
    where = ", ".join(str(step) for step in steps) if len(steps) <= 8 else f"{steps[0]}, {steps[1]}, … {steps[-1]}"
    disk = f", {told['disk_bytes'] / 1e6:,.0f} MB on disk" if told["disk_bytes"] else ""
    return [f"milestones steps {where} ({duration(seconds)} to look at them{disk}); select.by {by}"]


def _constant(told: dict[str, Any]) -> str:
    return "depends on the data" if told["step_zero_loss"] is None else f"{told['step_zero_loss']:.6g}"
