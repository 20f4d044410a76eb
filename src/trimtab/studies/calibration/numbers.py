"""What `trimtab calibrate` measured, as numbers with intervals: reward gap, next token, drift from the reference.

Intervals treat held-out pairs as the sample (with several seeds: pairs and seeds), never tokens, which hang together.
Shapes: K seeds, P pairs, M measures of a token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from trimtab.analysis import estimates
from trimtab.analysis.calibration import Bin, Chance, calibration, chance_error, expected_calibration_error, score_gaps
from trimtab.analysis.intervals import FloatArray, finite
from trimtab.analysis.token_calibration import TokenTable, chance_error_of_tokens, join, per_token, token_bins
from trimtab.records import Estimate
from trimtab.reporting.json_form import fields_form, json_form
from trimtab.studies.calibration.read import HeldoutRun, SeedReadings

ROWS = "held-out pairs"  # what was sampled, in an estimate's method
_LARGEST_EXPONENT = 700.0  # e to that is still a number; two seeds that disagree may reach further
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
            ci95=None if ci95 is None or ci95[1] > _LARGEST_EXPONENT else (math.exp(ci95[0]), math.exp(ci95[1])),
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
            "data": run.setup.config.data.label,
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
    tokens_P, rejected_tokens_P = policy[0].tokens_P, seeds[0].rejected_tokens_P
    gaps_before = [readings.gaps_before_P for readings in seeds if readings.gaps_before_P is not None]
    policy_KMP, reference_KMP = (np.array([table.sums_MP for table in tables]) for tables in (policy, reference))
    changes_KMP = per_token(policy_KMP - reference_KMP, tokens_P)
    chosen_ratio_KP = np.array([readings.reference.nll_P - readings.policy.nll_P for readings in seeds])
    rejected_ratio_KP = np.array([readings.rejected_ratio_P for readings in seeds])
    divergence_KP = np.array([readings.divergence_P for readings in seeds])
    return Measures(
        gaps_before=_gaps(gaps_before) if gaps_before else None,
        gaps_after=_gaps([readings.gaps_after_P for readings in seeds]),
        reference=_token_means(per_token(reference_KMP, tokens_P)),
        reference_error=_token_error(reference),
        policy=_token_means(per_token(policy_KMP, tokens_P)),
        policy_error=_token_error(policy),
        change=_token_changes(changes_KMP),
        drift=Drift(
            log_ratio_chosen=_change(per_token(chosen_ratio_KP, tokens_P)),
            log_ratio_rejected=_change(per_token(rejected_ratio_KP, rejected_tokens_P)),
            divergence=_mean(per_token(divergence_KP, tokens_P)).within(0.0, math.inf),  # a KL is never negative
        ),
    )


def _gaps(gaps: Sequence[FloatArray]) -> GapNumbers:
    gaps_KP = np.array(gaps, dtype=np.float64)
    scores = score_gaps(gaps_KP)
    return GapNumbers(
        accuracy=_rate(scores.right),
        confidence=_rate(scores.confidence),
        # a score interval, as of paired shares: pairs that are all right by nearly one gap are no proof of doubt
        over_confidence=_of_pairs(
            estimates.paired(scores.confidence - scores.right, in_unit_interval=True, rows=ROWS)
        ).within(-0.5, 1.0),
        brier=_rate(scores.squared_error),
        reward_gap=_mean(gaps_KP),
        error=_error(
            [calibration(gaps_P).bins for gaps_P in gaps_KP],
            [chance_error(gaps_P) for gaps_P in gaps_KP],
            bins=calibration(gaps_KP.ravel()).bins,
        ),
    )


def _token_means(values_KMP: FloatArray) -> TokenMeans:
    """From the measures of `TokenTable.sums_MP`, a token."""
    nll_KP, entropy_KP, right_KP, over_KP, brier_KP = values_KMP.swapaxes(0, 1)
    return TokenMeans(
        nll=_mean(nll_KP).within(0.0, math.inf),
        entropy=_mean(entropy_KP).within(0.0, math.inf),
        accuracy=_rate(right_KP),
        over_confidence=_mean(over_KP).within(-1.0, 1.0),
        brier=_rate(brier_KP),
    )


def _token_changes(changes_KMP: FloatArray) -> TokenMeans:
    """Paired changes of the same measures, each within what its two sides leave it."""
    nll, entropy, accuracy, over_confidence, brier = map(_change, changes_KMP.swapaxes(0, 1))
    return TokenMeans(
        nll, entropy, accuracy.within(-1.0, 1.0), over_confidence.within(-2.0, 2.0), brier.within(-1.0, 1.0)
    )


def _token_error(tables: Sequence[TokenTable]) -> CalibrationError:
    by_seed, chances = [token_bins(table) for table in tables], [chance_error_of_tokens(table) for table in tables]
    return _error(by_seed, chances, bins=token_bins(join(tables)))


def _error(by_seed: Sequence[Sequence[Bin]], chances: Sequence[Chance], *, bins: tuple[Bin, ...]) -> CalibrationError:
    ece = float(np.mean([expected_calibration_error(seed_bins) for seed_bins in by_seed]))
    mean, below95 = np.mean([(chance.mean, chance.below95) for chance in chances], axis=0).tolist()
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
