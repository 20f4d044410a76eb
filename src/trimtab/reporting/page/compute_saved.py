"""Compute saved: what was left out, the time that is estimated to have been saved, and how far to trust it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from trimtab.analysis import plots
from trimtab.analysis.compute_saved import SHARES, Saving
from trimtab.reporting.numbers.compute_saved import SavedNumbers, SeedSavings, ShrinkingNumbers
from trimtab.reporting.numbers.training import TrainingNumbers
from trimtab.reporting.sections import Block, Figures, Plot, Section, Sentence, Sentences, Table, Text
from trimtab.reporting.text import duration, number, significant

LEAD = (
    "A response whose gradient is exactly zero needs no backward pass. Leaving it out changes nothing but rounding; "
    "shrinking, where it was turned on, leaves out forward passes too and is an approximation."
)


def compute_saved(savings: SavedNumbers | None, training: TrainingNumbers | None) -> Section | None:
    """Sentences, the curves of active rates and skipped shares, and a table by seed."""
    if savings is None or training is None:
        return None
    entries = savings.seeds
    names = ["" if len(training.seeds) == 1 else f"Seed {entry.seed}: " for entry in entries]
    seeds = {entry.seed for entry in entries}
    blocks: list[Block] = [Text(LEAD, "lead")]
    for name, entry in zip(names, entries, strict=True):
        blocks.append(Text(name + _left_out(entry)))
        if entry.time.method != "nothing left out":  # what did not act has saved or cost no time
            blocks.append(Text(name + _time(entry.time)))
    if approximate := [
        Sentence(name + _approximate(entry.shrinking), "warn")
        for name, entry in zip(names, entries, strict=True)
        if entry.shrinking
    ]:
        blocks.append(Sentences(approximate))
    plot = Plot(
        plots.saved_plot([entry.curves for entry in training.seeds if entry.seed in seeds]),
        "Active and skipped",
        "active responses by side; response tokens skipped (no backward pass) and shrunk (not computed)",
    )
    blocks += [Figures([plot]), _table(entries)]
    return Section("saved", "Compute saved", "Compute saved", blocks)


def _left_out(entry: SeedSavings) -> str:
    shares = entry.shares
    text = f"{_percent(shares['skipped_backward'])} of the response tokens took no backward pass"
    if shares["skipped_forward"]:
        text += f"; {_percent(shares['skipped_forward'])} of all were not even computed"
    if entry.promoted_share is not None:
        text += (
            f". Of {number(entry.responses_screened)} responses screened by a forward pass alone, "
            f"{number(entry.responses_promoted)} ({_percent(entry.promoted_share)}) turned out active and were "
            "computed again"
        )
    return f"{text}."


def _time(time: Saving) -> str:
    if time.share is None:
        return "Time saved: not known; the steps' speeds are not recorded, or nearly everything was left out."
    return (
        f"The steps took {duration(time.seconds)}; dense they would have taken about "
        f"{duration(time.dense_seconds)}{_outcome(time, time.share)}. {_source(time)}"
    )


def _outcome(time: Saving, share: float) -> str:
    """`, so about 12 % of the time was saved (95 % CI 8 to 15)`, or that it cannot be told."""
    verb, ci95 = "saved" if share >= 0 else "lost", time.ci95
    if ci95 is None and time.method == "measured":
        return "; whether that saved time cannot be told from so few steps"
    if ci95 is None:
        return f", so about {_percent(abs(share), digits=0)} of the time was {verb}"
    low, high = (number(100 * end, digits=0) for end in ci95)
    if ci95[0] <= 0 <= ci95[1]:
        return f"; whether that saved time cannot be told ({_percent(share, digits=0)}, 95\u00a0% CI {low} to {high})"
    low, high = (low, high) if share >= 0 else (number(-100 * ci95[1], digits=0), number(-100 * ci95[0], digits=0))
    return f", so about {_percent(abs(share), digits=0)} of the time was {verb} (95\u00a0% CI {low} to {high})"


def _source(time: Saving) -> str:
    match time.method:
        case "measured":
            n = time.n_dense_steps
            return (
                f"An estimate: the steps that left something out at the run's own speed in the {number(n)} "
                f"{'step' if n == 1 else 'steps'} that left nothing out, {significant(time.dense_tokens_per_second)} "
                "tokens a second."
            )
        case "cost model":
            return (
                "An estimate by counting, since every step left something out: forward 1, backward 2, on response "
                "tokens alone. Prompts are left out less often, so this is an upper bound."
            )
        case "nothing left out" | "unknown":
            return ""
        case _:
            assert_never(time.method)


def _approximate(shrinking: ShrinkingNumbers) -> str:
    if shrinking.rate is None:
        return "approximate: no response that was passed over was checked again, so what was missed is not known."
    return (
        f"approximate: {number(shrinking.missed)} of {number(shrinking.rechecked)} re-checked responses had become "
        f"active unseen (missed-violation rate {_percent(shrinking.rate)}), after {number(shrinking.visits)} visits "
        "passed over."
    )


_ROWS = (
    "response tokens without a backward pass",
    "response tokens not computed at all",
    "response tokens computed twice (promoted)",
    "responses screened",
    "of these found active (promoted)",
    "time of the steps",
    "estimated dense time",
    "estimated from",
    "dense steps measured",
    "tokens a second",
    "tokens a second, dense steps",
    "missed-violation rate (approximate)",
)


def _table(entries: Sequence[SeedSavings]) -> Table:
    rows = [list(row) for row in zip(_ROWS, *(_column(entry) for entry in entries), strict=True)]
    if not any(entry.shrinking for entry in entries):
        rows.pop()
    return Table(["", *(f"seed {entry.seed}" for entry in entries)], rows, title="compute saved in figures")


def _column(entry: SeedSavings) -> list[str]:
    time = entry.time
    return [
        *(_percent(entry.shares[name]) for name in SHARES),
        number(entry.responses_screened),
        _percent(entry.promoted_share),
        duration(time.seconds),
        duration(time.dense_seconds),
        time.method,
        number(time.n_dense_steps),
        significant(time.tokens_per_second),
        significant(time.dense_tokens_per_second),
        _percent(entry.shrinking.rate if entry.shrinking else None),
    ]


def _percent(share: float | None, *, digits: int = 1) -> str:
    return number(None) if share is None else f"{number(100.0 * share, digits=digits)}\u00a0%"
