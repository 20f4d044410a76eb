"""What `trimtab calibrate` measured, as numbers with intervals: reward gap, next token, drift from the reference.

Intervals treat held-out pairs as the sample (with several seeds: pairs and seeds), never tokens, which hang together.
Shapes: K seeds, P pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from trimtab.analysis import estimates
from trimtab.analysis import token_calibration as tokens
from trimtab.analysis.calibration import Bin, Chance, calibration, chance_error, expected_calibration_error, score_gaps
from trimtab.analysis.intervals import FloatArray, finite
from trimtab.analysis.token_calibration import TokenTable
from trimtab.records import Estimate
from trimtab.reporting.json_form import fields_form, json_form
from trimtab.studies.calibration.read import HeldoutRun, SeedReadings

ROWS = "held-out pairs"  # what was sampled, in an estimate's method
BY_CONSTRUCTION = (
    "Before training the policy is its own reference: every reward gap is 0 and σ(0) is 50 %, by construction. "
    "There is nothing to calibrate."
)


@dataclass(frozen=True, slots=True)
class CalibrationError:
    """Means over seeds of the expected calibration error and of what chance alone would show; all seeds' bins."""

    ece: float | None
    chance: Chance
    bins: tuple[Bin, ...]

    @property
    def is_beyond_chance(self) -> bool:
        """Whether a calibrated model would show as much in fewer than 5 of 100 samples."""
        return self.ece is not None and self.ece > self.chance.below95

    def to_json(self) -> dict[str, object]:
        return {"ece": self.ece, "ece_by_chance": self.chance.to_json(), "bins": json_form(self.bins)}


@dataclass(frozen=True, slots=True)
class GapNumbers:
    """σ(|gap|) against how often the gap's sign is right (a gap of 0 is half right). Shares; `reward_gap` in nats."""

    accuracy: Estimate
    confidence: Estimate
    over_confidence: Estimate
    brier: Estimate
    reward_gap: Estimate
    error: CalibrationError

    def to_json(self) -> dict[str, object]:
        return fields_form(self, "error") | self.error.to_json()


@dataclass(frozen=True, slots=True)
class TokenMeans:
    """A token of the chosen responses: nats for `nll` and `entropy`, shares of the most likely token for the others.
    Or the paired change of each, policy less reference."""

    nll: Estimate
    entropy: Estimate
    accuracy: Estimate
    over_confidence: Estimate
    brier: Estimate

    @property
    def perplexity(self) -> Estimate:
        """Of a change: the ratio of both. The interval goes along, the spread between seeds does not."""
        value, ci95 = self.nll.value, self.nll.ci95
        return replace(
            self.nll,
            value=None if value is None else math.exp(value),
            ci95=None if ci95 is None else (math.exp(ci95[0]), math.exp(ci95[1])),
            seed_deviation=None,
        )

    def to_json(self, *, perplexity: str = "perplexity") -> dict[str, object]:
        tree = self.perplexity.to_json()
        tree.pop("seed_deviation", None)
        return fields_form(self) | {perplexity: tree}


@dataclass(frozen=True, slots=True)
class Drift:
    """Nats a token, policy against reference; `divergence` is KL(policy ‖ reference) on chosen responses."""

    log_ratio_chosen: Estimate
    log_ratio_rejected: Estimate
    divergence: Estimate


@dataclass(frozen=True, slots=True)
class Measures:
    """Of one seed, or of several together. `gaps_before` is None where every gap is 0 by construction."""

    gaps_before: GapNumbers | None
    gaps_after: GapNumbers
    reference: TokenMeans
    reference_error: CalibrationError
    policy: TokenMeans
    policy_error: CalibrationError
    change: TokenMeans
    drift: Drift

    def to_json(self) -> dict[str, object]:
        return {
            "reward_gap": {
                "note": None if self.gaps_before else BY_CONSTRUCTION,
                "before": json_form(self.gaps_before),
                "after": json_form(self.gaps_after),
            },
            "next_token": {
                "unaligned": self.reference.to_json() | self.reference_error.to_json(),
                "aligned": self.policy.to_json() | self.policy_error.to_json(),
                "change": self.change.to_json(perplexity="perplexity_ratio"),
            },
            "drift": json_form(self.drift),
        }


@dataclass(frozen=True, slots=True)
class CalibrationNumbers:
    """Everything that was measured on a run's held-out pairs. `by_seed`: only where there are several seeds."""

    run: HeldoutRun
    measures: Measures
    by_seed: tuple[Measures, ...]

    def to_json(self) -> dict[str, object]:
        run = self.run
        by_seed = zip(run.seeds, self.by_seed, strict=bool(self.by_seed))
        return {
            "model": run.setup.config.model.name,
            "adapter": run.setup.config.adapter.kind,
            "data": run.setup.config.data.source,
            "objective": {"name": run.setup.objective.name} | run.setup.objective.parameters(),
            "seeds": list(run.seeds),
            "n_pairs": len(run.pairs),
            "n_tokens": {"chosen": run.n_chosen_tokens, "rejected": run.n_rejected_tokens},
            **self.measures.to_json(),
            "by_seed": [{"seed": seed} | measures.to_json() for seed, measures in by_seed],
            "command": run.command,
        }


def calibration_numbers(run: HeldoutRun, readings: Sequence[SeedReadings]) -> CalibrationNumbers:
    """All seeds together, and each alone where there are several."""
    by_seed = tuple(measure([seed]) for seed in readings) if len(readings) > 1 else ()
    return CalibrationNumbers(run, measure(readings), by_seed)


def measure(seeds: Sequence[SeedReadings]) -> Measures:
    """The numbers of one seed, or of several together."""
    policy, reference = [readings.policy for readings in seeds], [readings.reference for readings in seeds]
    gaps_before = [readings.gaps_before_P for readings in seeds if readings.gaps_before_P is not None]
    return Measures(
        gaps_before=_gaps(gaps_before) if gaps_before else None,
        gaps_after=_gaps([readings.gaps_after_P for readings in seeds]),
        reference=_token_means(reference),
        reference_error=_token_error(reference),
        policy=_token_means(policy),
        policy_error=_token_error(policy),
        change=_token_changes(policy, reference),
        drift=_drift(seeds),
    )


def _gaps(gaps: Sequence[FloatArray]) -> GapNumbers:
    gaps_KP = np.array(gaps, dtype=np.float64)
    scores = score_gaps(gaps_KP)
    return GapNumbers(
        accuracy=_rate(scores.right),
        confidence=_rate(scores.confidence),
        over_confidence=_change(scores.confidence - scores.right),
        brier=_rate(scores.squared_error),
        reward_gap=_mean(gaps_KP),
        error=_error(
            [calibration(gaps_P).bins for gaps_P in gaps_KP],
            [chance_error(gaps_P) for gaps_P in gaps_KP],
            bins=calibration(gaps_KP.ravel()).bins,
        ),
    )


def _token_means(tables: Sequence[TokenTable]) -> TokenMeans:
    return TokenMeans(
        nll=_mean(_per_token(tables, [table.nll_P for table in tables])),
        entropy=_mean(_per_token(tables, [table.entropy_P for table in tables])),
        accuracy=_rate(_per_token(tables, [table.right_P for table in tables])),
        over_confidence=_mean(_per_token(tables, [table.over_P for table in tables])),
        brier=_rate(_per_token(tables, [table.brier_P for table in tables])),
    )


def _token_error(tables: Sequence[TokenTable]) -> CalibrationError:
    return _error(
        [tokens.token_bins(table) for table in tables],
        [tokens.chance_error_of_tokens(table) for table in tables],
        bins=tokens.token_bins(tokens.join(tables)),
    )


def _token_changes(policy: Sequence[TokenTable], reference: Sequence[TokenTable]) -> TokenMeans:
    sides = list(zip(policy, reference, strict=True))
    return TokenMeans(
        nll=_change(_per_token(policy, [after.nll_P - before.nll_P for after, before in sides])),
        entropy=_change(_per_token(policy, [after.entropy_P - before.entropy_P for after, before in sides])),
        accuracy=_change(_per_token(policy, [after.right_P - before.right_P for after, before in sides])),
        over_confidence=_change(_per_token(policy, [after.over_P - before.over_P for after, before in sides])),
        brier=_change(_per_token(policy, [after.brier_P - before.brier_P for after, before in sides])),
    )


def _drift(seeds: Sequence[SeedReadings]) -> Drift:
    policy = [readings.policy for readings in seeds]
    rejected_KP = [tokens.per_token(readings.rejected_ratio_P, readings.rejected_tokens_P) for readings in seeds]
    return Drift(
        log_ratio_chosen=_change(_per_token(policy, [r.reference.nll_P - r.policy.nll_P for r in seeds])),
        log_ratio_rejected=_change(np.array(rejected_KP)),
        divergence=_mean(_per_token(policy, [readings.divergence_P for readings in seeds])),
    )


def _per_token(tables: Sequence[TokenTable], sums: Sequence[FloatArray]) -> FloatArray:
    """[K, P]: values whose means are sums over tokens by their number."""
    return np.array([tokens.per_token(sums_P, t.tokens_P) for t, sums_P in zip(tables, sums, strict=True)])


def _error(seeds: Sequence[Sequence[Bin]], chances: Sequence[Chance], *, bins: tuple[Bin, ...]) -> CalibrationError:
    mean = float(np.mean([chance.mean for chance in chances]))
    below95 = float(np.mean([chance.below95 for chance in chances]))
    ece = float(np.mean([expected_calibration_error(seed_bins) for seed_bins in seeds]))
    return CalibrationError(finite(ece), Chance(mean, below95), bins)


def _rate(values_KP: FloatArray) -> Estimate:
    return _of_pairs(estimates.rate(values_KP, rows=ROWS))


def _mean(values_KP: FloatArray) -> Estimate:
    return _of_pairs(estimates.mean(values_KP, rows=ROWS))


def _change(values_KP: FloatArray) -> Estimate:
    return _of_pairs(estimates.paired(values_KP, rows=ROWS))


def _of_pairs(estimate: Estimate) -> Estimate:
    """One pair alone has no interval."""
    return estimate if estimate.n > 1 else replace(estimate, ci95=None)
