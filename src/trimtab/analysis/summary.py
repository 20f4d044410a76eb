"""Everything `trimtab winrate FILE` says about one model's verdicts, as plain keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.analysis.canaries import constant_answer
from trimtab.analysis.length_control import LengthControlled, length_controlled
from trimtab.analysis.lengths import win_rate_by_length_gap
from trimtab.analysis.winrate import WinRate, by_family, win_rate
from trimtab.errors import DataError
from trimtab.records import Verdict


def summarise(
    verdicts: Sequence[Verdict],
    *,
    difficulty: Sequence[float] | None = None,
    gamed: Mapping[str, Sequence[float]] | None = None,
    instructions: Sequence[str] | None = None,
    seed: int = 0,
    n_boot: int = 1000,
) -> dict[str, Any]:
    """Raw and length-controlled win rate of one model against one baseline, JSON-able.

    `difficulty` in the benchmark's official order, `instructions` that order's texts (see `align_difficulty`), `gamed`
    the regularising rows by column. `avg_length` is whole characters of the model's answers, cut down as AlpacaEval
    does. Raises DataError when there is no verdict, or more than one model or baseline.
    """
    model, baseline = _only_generators(verdicts)
    raw = win_rate([v.preference for v in verdicts])
    hardness, doubts = (None, ()) if difficulty is None else align_difficulty(verdicts, difficulty, instructions)
    controlled = length_controlled(
        [v.preference for v in verdicts],
        lengths_1=[len(v.output_1) for v in verdicts],
        lengths_2=[len(v.output_2) for v in verdicts],
        difficulty=hardness,
        gamed=gamed,
        is_baseline=model == baseline,
        seed=seed,
        n_boot=n_boot,
    )
    constant = constant_answer(verdicts)
    keys = raw.to_json() | controlled.to_json()
    keys["lc_notes"] = [*controlled.notes, *doubts, *_extreme_change(raw, controlled)]
    keys["avg_length"] = int(sum(len(v.output_2) for v in verdicts) / len(verdicts))
    keys["model"], keys["baseline"] = model, baseline
    keys["annotators"] = sorted({v.annotator for v in verdicts})
    keys["constant_answer"] = None if constant is None else constant.to_json()
    keys["warnings"] = [] if constant is None else [constant.sentence]
    keys["by_dataset"] = by_dataset(verdicts)
    keys["by_length_gap"] = by_length_gap(verdicts)
    return keys


def by_dataset(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """Raw win rate in every data set that the rows name; empty below two."""
    rates = by_family([v.preference for v in verdicts], [v.dataset for v in verdicts])
    named = {dataset: rate for dataset, rate in rates.items() if dataset}
    if len(named) < 2:
        return []
    return [{"dataset": dataset} | _short(rate) for dataset, rate in named.items()]


def by_length_gap(verdicts: Sequence[Verdict], *, n_bins: int = 5) -> list[dict[str, Any]]:
    """Raw win rate in bins of (model's length − baseline's) in characters, of equal share, shortest first.

    `gap` holds each bin's own smallest and largest. A rate that climbs with the gap is a judge that likes length, or
    a model that is better where it says more: the rows cannot tell which.
    """
    rates = win_rate_by_length_gap(
        [v.preference for v in verdicts],
        lengths_1=[len(v.output_1) for v in verdicts],
        lengths_2=[len(v.output_2) for v in verdicts],
        n_bins=n_bins,
    )
    return [{"gap": [int(low), int(high)]} | _short(rate) for (low, high), rate in rates.items()]


def _short(rate: WinRate) -> dict[str, Any]:
    told = rate.to_json()
    return {key: told[key] for key in ("win_rate", "ci95", "n_total", "n_missing")}


def align_difficulty(
    verdicts: Sequence[Verdict], difficulty: Sequence[float], instructions: Sequence[str] | None = None
) -> tuple[list[float], tuple[str, ...]]:
    """One difficulty a verdict, and what is doubtful about it in words.

    With the official `instructions` (in the order of `difficulty`) the join is by text. Without them it is by row
    position, which is what AlpacaEval does: right for a complete file in official order, and noted when rows are fewer.
    Raises DataError for an instruction the benchmark does not have, or more rows than difficulties.
    """
    if instructions is not None:
        if len(instructions) != len(difficulty):
            raise DataError(
                f"{len(instructions)} instructions for {len(difficulty)} difficulties",
                remedy="take both files from the same release of the benchmark",
            )
        table = dict(zip(instructions, difficulty, strict=True))
        unknown = [v.instruction for v in verdicts if v.instruction not in table]
        if unknown:
            raise DataError(
                f"{len(unknown)} verdicts are about instructions that have no difficulty, first {unknown[0][:60]!r}",
                remedy="leave the difficulty file out: the win rate is then length_controlled_minimal",
            )
        return [table[v.instruction] for v in verdicts], ()
    if len(verdicts) > len(difficulty):
        raise DataError(
            f"{len(verdicts)} verdicts but only {len(difficulty)} difficulties",
            remedy="leave the difficulty file out: the win rate is then length_controlled_minimal",
        )
    if len(verdicts) < len(difficulty):
        note = f"{len(verdicts)} rows for {len(difficulty)} difficulties: joined by row position, as AlpacaEval does"
        return list(difficulty[: len(verdicts)]), (note,)
    return list(difficulty), ()


def _only_generators(verdicts: Sequence[Verdict]) -> tuple[str, str]:
    if not verdicts:
        raise DataError("there are no verdicts to count", remedy="judge at least one answer")
    models, baselines = {v.generator_2 for v in verdicts}, {v.generator_1 for v in verdicts}
    for what, names in (("models", models), ("baselines", baselines)):
        if len(names) > 1:
            raise DataError(
                f"the verdicts are about {len(names)} {what}: {', '.join(sorted(names))}",
                remedy="give one file for each model and baseline",
            )
    return models.pop(), baselines.pop()


def _extreme_change(raw: WinRate, controlled: LengthControlled) -> tuple[str, ...]:
    """AlpacaEval's rule of thumb: further from the raw rate than 10 points and than a quarter of the way to the end."""
    old, new = raw.win_rate, controlled.length_controlled_winrate
    if new < min(old - old / 4, old - 10) or new > max(old + (100 - old) / 4, old + 10):
        return ("far from the raw win rate: lengths differ so much that the length model carries the result",)
    return ()
