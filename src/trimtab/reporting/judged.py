"""Who judged, what its canaries showed, and what alignment changed against a published baseline.

Shapes: K seeds, N prompts (in the benchmark's order; NaN where a prompt has no value).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trimtab.analysis import comparison, length_control, winrate
from trimtab.analysis.intervals import FloatArray, finite
from trimtab.records import Verdict
from trimtab.reporting import estimates
from trimtab.reporting.inputs import TRUTH, Run

LABELS = {TRUTH: "the oracle, which knows the truth", "biased": "the length-biased judge"}
N_BINS = 5
OFFICIAL = {"alpaca_eval": ("gpt-4-1106-preview", "weighted"), "alpaca_eval_1": ("gpt-4", "ranking")}
OFFICIAL_ORDER = "official seeded order"
_COUNTS = ("n_asked", "n_cached", "n_failed", "prompt_tokens", "completion_tokens")


def identity(runs: Sequence[Run]) -> dict[str, Any] | None:
    """Who judged: as the first seed's record has it, with counts and cost of all seeds. None without a record."""
    records = [run.judge for run in runs if run.judge is not None]
    if not records:
        return None
    told = dict(records[0])
    for key in (*_COUNTS, "n_prompts", "n_missing"):
        told[key] = sum(int(record.get(key) or 0) for record in records)
    costs = [record.get("cost_usd") for record in records]
    told["cost_usd"] = None if None in costs else float(sum(costs))  # type: ignore[arg-type]  # none is None here
    told["notes"] = list(dict.fromkeys(note for record in records for note in record.get("notes") or ()))
    told["allow_missing"] = all(record.get("allow_missing", False) for record in records)
    told["refused"] = refused(told)
    told["texts"] = told.get("texts") or {}
    return told


def refused(record: Mapping[str, Any]) -> bool:
    """Whether so many verdicts are missing that no headline number may be given."""
    return winrate.too_many_missing(record["n_missing"], of=record["n_prompts"]) and not record["allow_missing"]


def label(record: Mapping[str, Any]) -> str:
    """The judge on every number: its name, how it was asked, and the prompt by the start of its digest."""
    prompt = record.get("prompt_sha256")
    parts = [str(record.get("rubric") or ""), f"prompt {prompt[:8]}" if prompt else "", _order(record.get("order"))]
    name = str(record.get("judge"))
    told = [part for part in parts if part and part not in name]  # the name may say the rubric and both orders
    return f"{name} [{', '.join(told)}]" if told else name


def _order(order: Any) -> str:
    return "" if order in (None, "", "none") else str(order)


def is_calibrated(benchmark: str | None, record: Mapping[str, Any] | None) -> bool:
    """Whether the length model was made for this judge: the one that the leaderboard was made with, asked its way."""
    told = None if record is None else (record.get("model"), record.get("rubric"))
    return benchmark in OFFICIAL and told == OFFICIAL[str(benchmark)] and (record or {}).get("order") == OFFICIAL_ORDER


def canary_numbers(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The rows of every judge's canaries, with the judge on each; of the first seed that has any."""
    told = next((run.canaries for run in runs if run.canaries), ())
    return [
        {"judge": LABELS.get(entry.get("judge", ""), entry.get("judge", ""))} | dict(row)
        for entry in told
        for row in entry.get("canaries", ())
    ]


def unaligned_numbers(runs: Sequence[Run], prompts: Sequence[str], aligned_KN: FloatArray) -> dict[str, Any] | None:
    """The unaligned model's win rate against the same published baseline, and what alignment changed, paired.

    None where it was not judged. `change` is in points of win rate.
    """
    if not all(run.unaligned_verdicts for run in runs):
        return None
    unaligned_KN = np.stack([scores_of(run.unaligned_verdicts, prompts) for run in runs])
    return {
        "generator": runs[0].unaligned_verdicts[0].generator_2,
        "win_rate": estimates.percent(unaligned_KN),
        "change": change(aligned_KN, unaligned_KN, prompts),
    }


def change(aligned_KN: FloatArray, unaligned_KN: FloatArray, prompts: Sequence[str]) -> dict[str, Any]:
    """Aligned minus unaligned in points, paired by prompt: an estimate with counts, test and direction."""
    return difference(
        [_by_prompt(row, prompts) for row in aligned_KN], [_by_prompt(row, prompts) for row in unaligned_KN], scale=100
    )


def difference(
    aligned: Sequence[comparison.Scores], unaligned: Sequence[comparison.Scores], *, scale: float
) -> dict[str, Any]:
    """`analysis.comparison` as an estimate, the aligned model as A. Null where no prompt is common."""
    known = [[score for run in side for score in run.values() if score is not None] for side in (aligned, unaligned)]
    if not all(known) or not _common(aligned, unaligned):
        return estimates.estimate(np.nan, (np.nan, np.nan), n=0, method=estimates.PAIRED) | _NOTHING
    found = comparison.compare(aligned, unaligned, scale=scale, names=("aligned", "unaligned"))
    told = estimates.estimate(
        found.delta,
        found.ci95,
        n=found.n_common,
        n_missing=found.n_missing,
        n_seeds=found.n_seeds,
        method=estimates.PAIRED if found.n_seeds == 1 else found.method,
    )
    kept = {key: getattr(found, key) for key in ("wins_a", "wins_b", "ties", "p_value", "test")}
    few = found.n_common < comparison.MIN_COMMON
    return told | kept | {"direction": "unknown" if few else estimates.direction(told, 0.0)}


_NOTHING = {"wins_a": 0, "wins_b": 0, "ties": 0, "p_value": None, "test": comparison.SIGN_TEST, "direction": "unknown"}


def _common(aligned: Sequence[comparison.Scores], unaligned: Sequence[comparison.Scores]) -> bool:
    known = [
        {prompt for prompt, score in run.items() if score is not None} for side in (aligned, unaligned) for run in side
    ]
    return bool(set.intersection(*known))


def length_bins(runs: Sequence[Run], prompts: Sequence[str], judges: Sequence[str]) -> list[dict[str, Any]]:
    """Win rates in bins of equal share of (the aligned answer's length − the baseline's), characters, every judge.

    With several seeds a prompt's gap is the mean over them, so that every seed fills the same bins.
    """
    gaps = np.array([[len(run.after[p].output) - len(run.baseline[p].output) for p in prompts] for run in runs])
    gap_N = gaps.mean(axis=0)
    edges = np.unique(np.quantile(gap_N, np.linspace(0, 1, N_BINS + 1)[1:-1]))
    which_N = np.searchsorted(edges, gap_N, side="right")
    tables = {judge: np.stack([scores_of(run.verdicts[judge], prompts) for run in runs]) for judge in judges}
    return [
        {
            "gap": [float(gap_N[which_N == k].min()), float(gap_N[which_N == k].max())],
            "n_prompts": int((which_N == k).sum()),
            "judges": {judge: estimates.percent(table[:, which_N == k]) for judge, table in tables.items()},
        }
        for k in sorted(set(which_N.tolist()))
    ]


def length_fit(run: Run, rows: Sequence[Verdict], *, judge: str) -> length_control.LengthControlled:
    """The length model on one run's rows, with the official tables where they are known for every row."""
    tables = None if judge == TRUTH else run.length_tables
    difficulty = None
    if tables is not None and tables.difficulty is not None:
        by_prompt = dict(zip(run.baseline, tables.difficulty, strict=False))  # the baseline is in the official order
        if all(row.prompt_id in by_prompt for row in rows):
            difficulty = [by_prompt[row.prompt_id] for row in rows]
    return length_control.length_controlled(
        [row.preference for row in rows],
        lengths_1=[len(row.output_1) for row in rows],
        lengths_2=[len(row.output_2) for row in rows],
        difficulty=difficulty,
        gamed=None if tables is None else tables.gamed,
    )


def scores_of(verdicts: Sequence[Verdict], prompts: Sequence[str]) -> FloatArray:
    """Scores in [0, 1] in the order of `prompts`, NaN where there is no verdict; [N]."""
    by_prompt = {verdict.prompt_id: verdict.preference for verdict in verdicts}
    return winrate.scores_from(by_prompt.get(prompt) for prompt in prompts)


def _by_prompt(row_N: FloatArray, prompts: Sequence[str]) -> dict[str, float | None]:
    return {prompt: finite(float(score)) for prompt, score in zip(prompts, row_N, strict=True)}
