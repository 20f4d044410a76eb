"""Is A better than B, on the prompts both were judged on? And what could so many prompts have shown at all?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.analysis import comparison, marks, seeds
from trimtab.analysis.canaries import constant_answer
from trimtab.analysis.comparison import Comparison
from trimtab.analysis.length_control_paired import Side, length_controlled_difference
from trimtab.analysis.winrate import too_many_missing
from trimtab.commands.mean_marks import rows_of
from trimtab.errors import ConfigError, DataError
from trimtab.judging.mt_bench import read_categories
from trimtab.records import Verdict
from trimtab.studies.comparison import read as judgments
from trimtab.studies.comparison.read import Judged

POWER_AT = 0.8
ASKED_WITH = ("judge", "model", "rubric", "prompt_sha256", "order")
BOOTSTRAPS = 400


def main(
    a: str, b: str, *, benchmark: str | None = None, judge: str | None = None, questions: str | None = None
) -> dict[str, Any]:
    """Points of win rate, or marks, that A is ahead of B, paired by prompt.

    A and B are run folders (of one seed or several; RUN:unaligned is its unaligned model), annotations files, or
    FastChat judgments (FILE:MODEL names one of several models). Raises ConfigError for words that name nothing,
    DataError for judgments that cannot be compared.
    """
    side_a, side_b = (judgments.read(word, benchmark=benchmark, judge=judge) for word in (a, b))
    _require_same_asking(side_a, side_b)
    if bool(side_a.marks) != bool(side_b.marks):
        raise ConfigError(
            f"{a if side_a.marks else b} holds marks of single answers, the other verdicts on pairs",
            remedy="compare judgments of one kind",
        )
    if questions is not None and not side_a.marks:
        raise ConfigError("--questions has no use with verdicts on pairs", remedy="leave --questions out")
    side_a, side_b, notes = _paired_by_seed(side_a, side_b)
    told = _of_marks(side_a, side_b, questions) if side_a.marks else _of_verdicts(side_a, side_b)
    return {"a": a, "b": b} | told | {"notes": notes + told["notes"] + _counter_sign(told)}


def lines(told: dict[str, Any]) -> list[str]:
    """In words first, then the numbers."""
    unit = told["unit"]
    p_value = (
        "< 0.001" if told["p_value"] is not None and told["p_value"] < 0.001 else f"= {_figure(told['p_value'], 3)}"
    )
    shown = [
        *(f"WARNING: {warning}" for warning in told["warnings"]),
        f"{told['a']} against {told['b']}: {told['verdict']}",
        f"difference {_difference(told, unit)}; {told['test']}: p {p_value}",
        f"{_figure(told['mean_a'])} against {_figure(told['mean_b'])} {told['scale']}, judged by {told['judge']}"
        + (f" against {told['baseline']}" if told["baseline"] else ""),
        f"{told['n_common']} common prompts: {told['wins_a']} to {told['wins_b']}, {told['ties']} ties, "
        f"{told['n_missing']} missing on one side" + (f"; {told['n_seeds']} seeds" if told["n_seeds"] > 1 else ""),
    ]
    if told["length"] is not None:
        shown.append(f"length of the answers, A minus B: {_difference(told['length'], 'characters')}")
    if (controlled := told["length_controlled"]) is not None and controlled["delta"] is not None:
        shown.append(f"difference with length controlled {_difference(controlled, unit)}; {controlled['variant']}")
    width = max((len(row["group"]) for row in told["groups"]), default=0)
    shown += [
        f"  {row['group']:<{width}}  {_difference(row, unit)}; {row['n_common']} prompts: {row['verdict']}"
        for row in told["groups"]
    ]
    if told["groups"]:
        shown.append("  each group is tested alone: one in twenty differs by chance")
    return shown + [f"note: {note}" for note in told["notes"]]


def power(n: int, delta: float) -> dict[str, Any]:
    """The chance that `n` prompts show a true difference of `delta` points of win rate."""
    return comparison.power(n, delta=delta).to_json()


def power_lines(told: dict[str, Any]) -> list[str]:
    return [
        f"{told['n']} prompts show a true difference of {told['delta']:g} points with a chance of {told['power']:.0%}",
        f"with {POWER_AT:.0%} chance they show {told['detectable']:.1f} points; {told['delta']:g} points need "
        f"{told['n_needed']:,} prompts (paired spread {told['sd']:g} points)",
    ]


# --- verdicts on pairs -----------------------------------------------------------------------------------------------


def _of_verdicts(a: Judged, b: Judged) -> dict[str, Any]:
    names = (a.name, b.name)
    rows_a, rows_b = ([list(rows) for rows in side.verdicts.values()] for side in (a, b))
    for one, other in _side_by_side(rows_a, rows_b):
        comparison.require_same_judging(one, other, names=names)
    scores_a, scores_b = ([comparison.scores_by_prompt(rows) for rows in side] for side in (rows_a, rows_b))
    datasets = {v.prompt_id: v.dataset for rows in (*rows_a, *rows_b) for v in rows if v.dataset}
    found = comparison.compare(scores_a, scores_b, names=names)
    groups = comparison.compare_groups(scores_a, scores_b, datasets)
    lengths_a, lengths_b = (
        [{v.prompt_id: float(len(v.output_2)) for v in rows} for rows in side] for side in (rows_a, rows_b)
    )
    first = rows_a[0][0]
    return found.to_json() | {
        "unit": "points",
        "scale": "% win rate",
        "judge": first.annotator or "an unnamed judge",
        "baseline": first.generator_1,
        "groups": _groups(groups) if len(groups) > 1 else [],
        "length": _length(lengths_a, lengths_b, names),
        "length_controlled": _length_controlled(_side_by_side(rows_a, rows_b)),
        "warnings": _warnings((rows_a, rows_b)),
        "notes": _missing_note(found),
    }


def _warnings(sides: Sequence[Sequence[Sequence[Verdict]]]) -> list[str]:
    told = (constant_answer(rows) for runs in sides for rows in runs)
    return list(dict.fromkeys(constant.sentence for constant in told if constant is not None))


def _length_controlled(pairs: Sequence[tuple[Sequence[Verdict], Sequence[Verdict]]]) -> dict[str, Any] | None:
    """The difference with answer length controlled (minimal model), one run a side or pooled over the seeds.

    None below ten common prompts, and where the oracle judges: it does not see length.
    """
    if pairs[0][0][0].annotator == judgments.TRUTH:
        return None
    fits = []
    for rows_a, rows_b in pairs:
        by_prompt = {v.prompt_id: v for v in rows_b}
        common = [(v, by_prompt[v.prompt_id]) for v in rows_a if v.prompt_id in by_prompt]
        judged = [pair for pair in common if all(comparison.is_judged(v) for v in pair)]
        sides = [_side_of([pair[k] for pair in judged]) for k in (0, 1)]
        fits.append(length_controlled_difference(sides[0], sides[1], n_boot=BOOTSTRAPS))
    if any(math.isnan(fit.delta) for fit in fits):
        return None
    if len(fits) == 1:
        return fits[0].to_json()
    pooled = seeds.pooled_figures(
        [fit.delta for fit in fits],
        standard_errors=[fit.standard_error for fit in fits],
        n_prompts=min(fit.n_rows for fit in fits),
    )
    mean_a, mean_b = (float(np.mean([getattr(fit, rate) for fit in fits])) for rate in ("rate_a", "rate_b"))
    whole = replace(fits[0], delta=pooled.mean, ci95=pooled.ci95, rate_a=mean_a, rate_b=mean_b)
    return whole.to_json()


def _side_of(rows: Sequence[Verdict]) -> Side:
    return Side([v.preference for v in rows], [len(v.output_1) for v in rows], [len(v.output_2) for v in rows])


# --- marks -----------------------------------------------------------------------------------------------------------


def _of_marks(a: Judged, b: Judged, questions: str | None) -> dict[str, Any]:
    names = (a.name, b.name)
    judges_a, judges_b = ({mark.judge for rows in side.marks.values() for mark in rows} for side in (a, b))
    if judges_a != judges_b:
        raise DataError(
            f"{a.name} was marked by {', '.join(sorted(judges_a))}, {b.name} by {', '.join(sorted(judges_b))}",
            remedy="judge both with the same judge",
        )
    rows_a, rows_b = ([rows_of(rows) for rows in side.marks.values()] for side in (a, b))
    asked = sorted({row[0] for rows in (*rows_a, *rows_b) for row in rows})
    categories = read_categories(Path(questions)) if questions else marks.categories_of(asked)
    found, by_turn, by_category = marks.compare_marks(rows_a, rows_b, categories=categories, names=names)
    groups = {f"turn {turn}": one for turn, one in by_turn.items()} | by_category
    length = None
    if a.lengths and b.lengths:
        length = _length(list(a.lengths.values()), list(b.lengths.values()), names)
    return found.to_json() | {
        "unit": "marks",
        "scale": "of 10",
        "judge": next(iter(judges_a)),
        "baseline": None,
        "groups": _groups(groups),
        "length": length,
        "length_controlled": None,
        "warnings": [],
        "notes": _missing_note(found),
    }


# --- both ------------------------------------------------------------------------------------------------------------


def _paired_by_seed(a: Judged, b: Judged) -> tuple[Judged, Judged, list[str]]:
    """Both sides with the same seeds in the same order; a side of one run stands beside every seed of the other."""
    if a.seeds == b.seeds or len(a.seeds) == len(b.seeds) == 1:
        return a, b, []
    for single, several in ((a, b), (b, a)):
        if len(single.seeds) == 1:
            note = f"{single.name} is one run beside {len(several.seeds)} seeds of {several.name}: "
            return a, b, [note + "the interval says nothing about other seeds of it"]
    common = [seed for seed in a.seeds if seed in b.seeds]
    if len(common) < 2:
        raise ConfigError(
            f"{a.name} has the seeds {_listed(a.seeds)}, {b.name} {_listed(b.seeds)}: fewer than two in common",
            remedy="compare runs of the same seeds, or single seeds: RUN/seed-0",
        )
    left_out = sorted(set(a.seeds).symmetric_difference(b.seeds))
    return _only_seeds(a, common), _only_seeds(b, common), [f"only on one side and left out: seed {_listed(left_out)}"]


def _only_seeds(side: Judged, kept: Sequence[int]) -> Judged:
    return replace(
        side,
        verdicts={seed: side.verdicts[seed] for seed in kept if seed in side.verdicts},
        marks={seed: side.marks[seed] for seed in kept if seed in side.marks},
        lengths={seed: side.lengths[seed] for seed in kept if seed in side.lengths},
    )


def _side_by_side(a: Sequence[Any], b: Sequence[Any]) -> list[tuple[Any, Any]]:
    n = max(len(a), len(b))
    return list(zip(a if len(a) == n else [*a] * n, b if len(b) == n else [*b] * n, strict=True))


def _require_same_asking(a: Judged, b: Judged) -> None:
    """Where both runs say what their judge was asked with, it must be the same."""
    if not a.asked or not b.asked:
        return
    for key in ASKED_WITH:
        if a.asked.get(key) != b.asked.get(key):
            raise DataError(
                f"{a.name} and {b.name} were not judged alike: {key} is {a.asked.get(key)!r} and {b.asked.get(key)!r}",
                remedy="judge both with the same judge, prompt and order",
            )


def _length(
    a: Sequence[Mapping[str, float]], b: Sequence[Mapping[str, float]], names: tuple[str, str]
) -> dict[str, Any]:
    found = comparison.compare(a, b, scale=1.0, names=names).to_json()
    kept = {key: found[key] for key in ("delta", "ci95", "n_common", "mean_a", "mean_b")}
    return kept | {"unit": "characters"}


def _groups(found: Mapping[str, Comparison]) -> list[dict[str, Any]]:
    kept = ("delta", "ci95", "n_common", "wins_a", "wins_b", "ties", "n_missing", "verdict", "mean_a", "mean_b")
    return [{"group": group} | {key: one.to_json()[key] for key in kept} for group, one in found.items()]


def _missing_note(found: Comparison) -> list[str]:
    n = found.n_common + found.n_missing
    if not too_many_missing(found.n_missing, of=n):
        return []
    return [
        f"{found.n_missing} of {n} prompts ({100 * found.n_missing / n:.1f} %) lack a verdict on one side and are left "
        "out: if they are missing for a reason, the difference is of the rest only"
    ]


def _counter_sign(told: Mapping[str, Any]) -> list[str]:
    """Fewer prompts won by more can outweigh more prompts won by less, and then the two tests disagree."""
    lead = told["wins_a"] - told["wins_b"]
    if told["test"] != comparison.SIGN_TEST or told["p_value"] >= 0.05 or lead * told["delta"] >= 0:
        return []
    more, fewer = ("A", "B") if lead > 0 else ("B", "A")
    return [
        f"{more} is ahead on more prompts, {fewer} by more where it is ahead: the difference is of means, the sign "
        "test counts prompts"
    ]


def _difference(told: Mapping[str, Any], unit: str) -> str:
    low, high = told["ci95"]
    bounds = f"{_figure(low, signed=True)} to {_figure(high, signed=True)}"
    return f"{_figure(told['delta'], signed=True)} {unit} (95 % CI {bounds})"


def _figure(value: float | None, digits: int = 2, *, signed: bool = False) -> str:
    if value is None:
        return "not estimated"
    return f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"


def _listed(found: Sequence[int]) -> str:
    return ", ".join(str(seed) for seed in found)
