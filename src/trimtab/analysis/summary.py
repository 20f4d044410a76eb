"""Everything `trimtab winrate FILE` says about one model's verdicts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from trimtab.analysis.canaries import Constant, constant_answer
from trimtab.analysis.length_control import LengthControlled, length_controlled
from trimtab.analysis.lengths import win_rate_by_length_gap
from trimtab.analysis.winrate import WinRate, by_family, win_rate
from trimtab.errors import DataError
from trimtab.records import Verdict

N_LENGTH_BINS = 5  # 161 of AlpacaEval's prompts a bin: intervals of ±8 points
_SHORT = ("win_rate", "ci95", "n_total", "n_missing")  # what a row of a breakdown says of its rate


@dataclass(frozen=True, slots=True)
class LengthBin:
    """Prompts on which the model's answer is `shortest` to `longest` characters longer than the baseline's."""

    shortest: int
    longest: int
    rate: WinRate


@dataclass(frozen=True, slots=True)
class Summary:
    """One model against one baseline. `avg_length` is whole characters of the model's answers, rounded down as
    AlpacaEval does. `by_dataset` is empty where the rows name fewer than two data sets.
    """

    model: str
    baseline: str
    annotators: tuple[str, ...]
    raw: WinRate
    length_controlled: LengthControlled
    avg_length: int
    constant: Constant | None
    by_dataset: Mapping[str, WinRate]
    by_length_gap: tuple[LengthBin, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What must stand above the numbers."""
        return () if self.constant is None else (self.constant.sentence,)

    def to_json(self) -> dict[str, Any]:
        return (
            self.raw.to_json()
            | self.length_controlled.to_json()
            | {
                "avg_length": self.avg_length,
                "model": self.model,
                "baseline": self.baseline,
                "annotators": list(self.annotators),
                "constant_answer": None if self.constant is None else self.constant.to_json(),
                "warnings": list(self.warnings),
                "by_dataset": [{"dataset": name} | _short_form(rate) for name, rate in self.by_dataset.items()],
                "by_length_gap": [
                    {"gap": [bin.shortest, bin.longest]} | _short_form(bin.rate) for bin in self.by_length_gap
                ],
            }
        )


def _short_form(rate: WinRate) -> dict[str, Any]:
    tree = rate.to_json()
    return {key: tree[key] for key in _SHORT}


def summarise(
    verdicts: Sequence[Verdict],
    *,
    difficulty: Sequence[float] | None = None,
    regularisers: Mapping[str, Sequence[float]] | None = None,
    instructions: Sequence[str] | None = None,
) -> Summary:
    """Raw and length-controlled win rate of one model against one baseline.

    `difficulty` in the benchmark's official order, `instructions` that order's texts (see `align_difficulty`),
    `regularisers` the
    published rows by column. Raises DataError when there is no verdict, or more than one model or baseline.
    """
    model, baseline = _only_generators(verdicts)
    raw = win_rate([v.preference for v in verdicts])
    difficulty_N, doubts = (None, ()) if difficulty is None else align_difficulty(verdicts, difficulty, instructions)
    fit = length_controlled(
        [v.preference for v in verdicts],
        lengths_1=[len(v.output_1) for v in verdicts],
        lengths_2=[len(v.output_2) for v in verdicts],
        difficulty=difficulty_N,
        regularisers=regularisers,
        is_baseline=all(v.output_1 == v.output_2 for v in verdicts),  # a name may stand for several models
    )
    return Summary(
        model=model,
        baseline=baseline,
        annotators=tuple(sorted({v.annotator for v in verdicts})),
        raw=raw,
        length_controlled=replace(fit, notes=(*fit.notes, *doubts, *_extreme_change(raw, fit))),
        avg_length=int(sum(len(v.output_2) for v in verdicts) / len(verdicts)),
        constant=constant_answer(verdicts),
        by_dataset=_by_dataset(verdicts),
        by_length_gap=_by_length_gap(verdicts),
    )


def _by_dataset(verdicts: Sequence[Verdict]) -> dict[str, WinRate]:
    """Raw win rate in every data set that the rows name; empty below two."""
    rates = by_family([v.preference for v in verdicts], [v.dataset for v in verdicts])
    with_name = {dataset: rate for dataset, rate in rates.items() if dataset}
    return with_name if len(with_name) > 1 else {}


def _by_length_gap(verdicts: Sequence[Verdict]) -> tuple[LengthBin, ...]:
    """Raw win rate in bins of (model's length − baseline's) in characters, of equal share, shortest first.

    A rate that climbs with the gap is a judge that likes length, or a model that is better where it says more: the
    rows cannot tell which.
    """
    rates = win_rate_by_length_gap(
        [v.preference for v in verdicts],
        lengths_1=[len(v.output_1) for v in verdicts],
        lengths_2=[len(v.output_2) for v in verdicts],
        n_bins=N_LENGTH_BINS,
    )
    return tuple(LengthBin(int(low), int(high), rate) for (low, high), rate in rates.items())


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
    for role, names in (("models", models), ("baselines", baselines)):
        if len(names) > 1:
            raise DataError(
                f"the verdicts are about {len(names)} {role}: {', '.join(sorted(names))}",
                remedy="give one file for each model and baseline",
            )
    return models.pop(), baselines.pop()


def _extreme_change(raw: WinRate, fit: LengthControlled) -> tuple[str, ...]:
    """AlpacaEval's rule of thumb: further from the raw rate than 10 points and than a quarter of the way to the end."""
    if math.isnan(fit.lc_ci95[0]) or fit.weights.get("own") == 0:
        return ()  # not identified, or shrunk to 50 by the penalty: then it is not length that carried it there
    old, new = raw.win_rate, fit.length_controlled_winrate
    if new < min(old - old / 4, old - 10) or new > max(old + (100 - old) / 4, old + 10):
        return ("far from the raw win rate: lengths differ so much that the length model carries the result",)
    return ()
