"""The paired difference of two sides, whole and by group, with what must be said beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from trimtab.analysis import comparison, marks, seeds
from trimtab.analysis.canaries import constant_answer
from trimtab.analysis.comparison import Comparison
from trimtab.analysis.intervals import sign_test
from trimtab.analysis.length_control_paired import ControlledDifference, Side, length_controlled_difference
from trimtab.analysis.winrate import too_many_missing
from trimtab.errors import ConfigError, DataError
from trimtab.records import Verdict
from trimtab.studies.comparison.read import TRUTH, Judgments
from trimtab.studies.winrate.numbers import categories_of, rows_of

GROUP_KEYS = ("delta", "ci95", "n_common", "wins_a", "wins_b", "ties", "n_missing", "verdict", "mean_a", "mean_b")
LENGTH_KEYS = ("delta", "ci95", "n_common", "mean_a", "mean_b")
Run = TypeVar("Run")


@dataclass(frozen=True, slots=True)
class ComparisonNumbers:
    """A minus B in `unit`. `groups` are data sets, or turns and categories, each compared alone; `length` is of the
    answers, in characters. `baseline` is what both were judged against; None for marks.
    """

    a: str
    b: str
    whole: Comparison
    unit: str
    scale: str
    judge: str
    baseline: str | None = None
    groups: Mapping[str, Comparison] | None = None
    length: Comparison | None = None
    length_controlled: ControlledDifference | None = None
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return (
            {"a": self.a, "b": self.b}
            | self.whole.to_json()
            | {
                "unit": self.unit,
                "scale": self.scale,
                "judge": self.judge,
                "baseline": self.baseline,
                "groups": [{"group": name} | _only(group, GROUP_KEYS) for name, group in (self.groups or {}).items()],
                "length": None if self.length is None else _only(self.length, LENGTH_KEYS) | {"unit": "characters"},
                "length_controlled": None if self.length_controlled is None else self.length_controlled.to_json(),
                "warnings": list(self.warnings),
                "notes": list(self.notes),
            }
        )


def _only(difference: Comparison, keys: Sequence[str]) -> dict[str, Any]:
    tree = difference.to_json()
    return {key: tree[key] for key in keys}


def compare(a: Judgments, b: Judgments, *, questions: str | None, allow_missing: bool = False) -> ComparisonNumbers:
    """A minus B on their common prompts. `questions` names the file with the categories of marked questions.

    Raises ConfigError for sides of two kinds or without common seeds, DataError where they were not judged alike.
    """
    _require_same_judge_record(a, b)
    if bool(a.marks) != bool(b.marks):
        raise ConfigError(
            f"{a.name if a.marks else b.name} holds marks of single answers, the other verdicts on pairs",
            remedy="compare judgments of one kind",
        )
    if questions is not None and not a.marks:
        raise ConfigError("--questions has no use with verdicts on pairs", remedy="leave --questions out")
    a, b, seed_notes = _paired_by_seed(a, b)
    numbers = _of_marks(a, b, questions) if a.marks else _of_verdicts(a, b)
    missing_note = () if allow_missing else _missing_note(numbers.whole)
    notes = (*seed_notes, *missing_note, *_counter_sign(numbers.whole))
    return replace(numbers, notes=notes)


# --- verdicts on pairs -----------------------------------------------------------------------------------------------


def _of_verdicts(a: Judgments, b: Judgments) -> ComparisonNumbers:
    names = (a.name, b.name)
    runs_a, runs_b = list(a.verdicts.values()), list(b.verdicts.values())
    for run_a, run_b in _side_by_side(runs_a, runs_b):
        comparison.require_same_judging(run_a, run_b, names=names)
    scores_a, scores_b = ([comparison.scores_by_prompt(run) for run in runs] for runs in (runs_a, runs_b))
    first = runs_a[0][0]
    return ComparisonNumbers(
        a=a.name,
        b=b.name,
        whole=comparison.compare(scores_a, scores_b, names=names),
        unit="points",
        scale="% win rate",
        judge=first.annotator or "an unnamed judge",
        baseline=first.generator_1,
        groups=_by_dataset(scores_a, scores_b, (*runs_a, *runs_b)),
        length=comparison.compare(_lengths(runs_a), _lengths(runs_b), scale=1.0, top=None, names=names),
        # the oracle does not see length
        length_controlled=None if first.annotator == TRUTH else _length_controlled(_side_by_side(runs_a, runs_b)),
        warnings=_constant_answers((*runs_a, *runs_b)),
    )


def _by_dataset(
    scores_a: Sequence[comparison.Scores], scores_b: Sequence[comparison.Scores], runs: Sequence[Sequence[Verdict]]
) -> Mapping[str, Comparison] | None:
    """None where the rows name fewer than two data sets."""
    datasets = {v.prompt_id: v.dataset for run in runs for v in run if v.dataset}
    groups = comparison.compare_groups(scores_a, scores_b, datasets)
    return groups if len(groups) > 1 else None


def _lengths(runs: Sequence[Sequence[Verdict]]) -> list[comparison.Scores]:
    """Characters of the model's answers, by prompt, of every run."""
    return [{v.prompt_id: float(len(v.output_2)) for v in run} for run in runs]


def _constant_answers(runs: Sequence[Sequence[Verdict]]) -> tuple[str, ...]:
    constants = (constant_answer(run) for run in runs)
    return tuple(dict.fromkeys(constant.sentence for constant in constants if constant is not None))


def _length_controlled(
    pairs: Sequence[tuple[Sequence[Verdict], Sequence[Verdict]]],
) -> ControlledDifference | None:
    """The difference with answer length controlled (minimal model), of one run a side or pooled over the seeds.

    None where there is none: below ten common prompts.
    """
    fits = [length_controlled_difference(*_common_sides(*pair)) for pair in pairs]
    if any(np.isnan(fit.delta) for fit in fits):
        return None
    if len(fits) == 1:
        return fits[0]
    over_seeds = seeds.pooled_figures(
        [fit.delta for fit in fits],
        standard_errors=[fit.standard_error for fit in fits],
        n_prompts=min(fit.n_rows for fit in fits),
        limits=(-100.0, 100.0),
    )
    return replace(
        fits[0],
        delta=over_seeds.mean,
        ci95=over_seeds.ci95,
        rate_a=float(np.mean([fit.rate_a for fit in fits])),
        rate_b=float(np.mean([fit.rate_b for fit in fits])),
    )


def _common_sides(rows_a: Sequence[Verdict], rows_b: Sequence[Verdict]) -> tuple[Side, Side]:
    """Both sides on the prompts that both have a verdict on, in the order of A."""
    b_by_prompt = {v.prompt_id: v for v in rows_b if comparison.is_judged(v)}
    common_a = [v for v in rows_a if comparison.is_judged(v) and v.prompt_id in b_by_prompt]
    return _side_of(common_a), _side_of([b_by_prompt[v.prompt_id] for v in common_a])


def _side_of(rows: Sequence[Verdict]) -> Side:
    return Side([v.preference for v in rows], [len(v.output_1) for v in rows], [len(v.output_2) for v in rows])


# --- marks -----------------------------------------------------------------------------------------------------------


def _of_marks(a: Judgments, b: Judgments, questions: str | None) -> ComparisonNumbers:
    names = (a.name, b.name)
    judges_a, judges_b = ({mark.judge for run in side.marks.values() for mark in run} for side in (a, b))
    if judges_a != judges_b:
        raise DataError(
            f"{a.name} was marked by {', '.join(sorted(judges_a))}, {b.name} by {', '.join(sorted(judges_b))}",
            remedy="judge both with the same judge",
        )
    categories = categories_of([mark for side in (a, b) for run in side.marks.values() for mark in run], questions)
    rows_a, rows_b = ([rows_of(run) for run in side.marks.values()] for side in (a, b))
    whole, by_turn, by_category = marks.compare_marks(rows_a, rows_b, categories=categories, names=names)
    length = None
    if a.lengths and b.lengths:
        length = comparison.compare(
            list(a.lengths.values()), list(b.lengths.values()), scale=1.0, top=None, names=names
        )
    return ComparisonNumbers(
        a=a.name,
        b=b.name,
        whole=whole,
        unit="marks",
        scale="of 10",
        judge=next(iter(judges_a)),
        groups={f"turn {turn}": difference for turn, difference in by_turn.items()} | by_category,
        length=length,
    )


# --- both ------------------------------------------------------------------------------------------------------------


def _paired_by_seed(a: Judgments, b: Judgments) -> tuple[Judgments, Judgments, tuple[str, ...]]:
    """Both sides with the same seeds in the same order; a side of one run stands beside every seed of the other."""
    if a.seeds == b.seeds or len(a.seeds) == len(b.seeds) == 1:
        return a, b, ()
    for single, several in ((a, b), (b, a)):
        if len(single.seeds) == 1:
            note = f"{single.name} is one run beside {len(several.seeds)} seeds of {several.name}: "
            return a, b, (note + "the interval says nothing about other seeds of it",)
    common = [seed for seed in a.seeds if seed in b.seeds]
    if len(common) < 2:
        raise ConfigError(
            f"{a.name} has the seeds {_seed_list(a.seeds)}, {b.name} {_seed_list(b.seeds)}: fewer than two in common",
            remedy="compare runs of the same seeds, or single seeds: RUN/seed-0",
        )
    surplus = sorted(set(a.seeds).symmetric_difference(b.seeds))
    notes = (f"only on one side and left out: seed {_seed_list(surplus)}",) if surplus else ()
    return a.only_seeds(common), b.only_seeds(common), notes


def _side_by_side(a: Sequence[Run], b: Sequence[Run]) -> list[tuple[Run, Run]]:
    """Run by run; a single run stands beside every one of the other side."""
    n = max(len(a), len(b))
    return list(zip([*a] * (n // len(a)), [*b] * (n // len(b)), strict=True))


def _require_same_judge_record(a: Judgments, b: Judgments) -> None:
    """Where both runs say what their judge was given, it must be the same."""
    for (key, value_a), (_, value_b) in zip(a.judge_record, b.judge_record, strict=False):
        if value_a != value_b:
            raise DataError(
                f"{a.name} and {b.name} were not judged alike: {key} is {value_a!r} and {value_b!r}",
                remedy="judge both with the same judge, prompt and order",
            )


def _missing_note(whole: Comparison) -> tuple[str, ...]:
    n = whole.n_common + whole.n_missing
    if not too_many_missing(whole.n_missing, of=n):
        return ()
    return (
        f"{whole.n_missing} of {n} prompts ({100 * whole.n_missing / n:.1f} %) lack a verdict on one side and are left "
        "out: if they are missing for a reason, the difference is of the rest only (--allow-missing: that is known)",
    )


def _counter_sign(whole: Comparison) -> tuple[str, ...]:
    """Fewer prompts won by more can outweigh more prompts won by less: then the counts and the mean disagree."""
    lead = whole.wins_a - whole.wins_b
    if lead * whole.delta >= 0 or sign_test(whole.wins_a, whole.wins_b) >= 0.05:
        return ()
    more, fewer = ("A", "B") if lead > 0 else ("B", "A")
    return (
        f"{more} is ahead on more prompts, {fewer} by more where it is ahead: the difference and the verdict are "
        "of the mean, not of the count",
    )


def _seed_list(seeds_of_side: Sequence[int]) -> str:
    return ", ".join(str(seed) for seed in seeds_of_side)
