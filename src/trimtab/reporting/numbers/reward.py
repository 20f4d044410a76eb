"""What the held-out pairs say of a reward model: whether it ranks as labels do, how sure it should be, and length.

Shapes: K seeds, P held-out pairs. A preference is 1 for the chosen response, 0 for the rejected one, ½ for a tie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from trimtab.analysis import estimates
from trimtab.analysis.calibration import temperature
from trimtab.analysis.intervals import FloatArray
from trimtab.records import Estimate
from trimtab.reporting.read import PairFacts, Run


@dataclass(frozen=True, slots=True)
class LengthNumbers:
    """Over pairs whose responses differ in length (characters). `by_reward` and `by_labels`: shares of pairs in which
    the longer response is preferred; `lean`: their paired difference. The accuracies are over the pairs in which the
    labels prefer the longer, and the shorter response: a reward that counts characters has 1 and 0."""

    by_reward: Estimate
    by_labels: Estimate
    lean: Estimate
    accuracy_longer: Estimate
    accuracy_shorter: Estimate


@dataclass(frozen=True, slots=True)
class TruthNumbers:
    """Agreement with the embedded world's oracle, of the reward and of the labels that it learned from, over the
    held-out pairs whose true qualities differ."""

    by_reward: Estimate
    by_labels: Estimate


@dataclass(frozen=True, slots=True)
class RewardNumbers:
    """`temperature` is of the gaps of all seeds; where there are several, without an interval."""

    temperature: Estimate
    length: LengthNumbers | None
    truth: TruthNumbers | None


def reward_numbers(runs: Sequence[Run]) -> RewardNumbers | None:
    """None where these are no reward models, or a seed did not look at pairs kept out of training."""
    afters = [run.heldout.after for run in runs if run.heldout is not None]
    facts = runs[0].pair_facts
    if len(afters) < len(runs) or not facts:
        return None
    names = [name for name in facts if all(name in after for after in afters)]
    gaps_KP = np.array([[after[name] for name in names] for after in afters], dtype=np.float64)
    heat = temperature(gaps_KP.ravel())
    return RewardNumbers(
        heat if len(runs) == 1 else replace(heat, ci95=None, n=len(names), n_seeds=len(runs)),
        _length(gaps_KP, [facts[name] for name in names]),
        _truth(gaps_KP, [facts[name] for name in names]),
    )


def _preferences(gaps: FloatArray) -> FloatArray:
    return np.where(gaps > 0, 1.0, np.where(gaps < 0, 0.0, 0.5))


def _length(gaps_KP: FloatArray, facts: Sequence[PairFacts]) -> LengthNumbers | None:
    """None where all pairs are of one length."""
    longer_P = np.array([pair.chosen_characters - pair.rejected_characters for pair in facts], dtype=np.float64)
    differs_P = longer_P != 0
    if not differs_P.any():
        return None
    labels_P = (longer_P[differs_P] > 0).astype(np.float64)  # 1: the longer one is chosen
    right_KP = _preferences(gaps_KP[:, differs_P])
    reward_KP = np.where(labels_P == 1, right_KP, 1 - right_KP)
    return LengthNumbers(
        by_reward=_rate(reward_KP),
        by_labels=_rate(np.broadcast_to(labels_P, reward_KP.shape)),
        lean=estimates.paired(reward_KP - labels_P, in_unit_interval=True, rows="pairs"),
        accuracy_longer=_rate(right_KP[:, labels_P == 1]),
        accuracy_shorter=_rate(right_KP[:, labels_P == 0]),
    )


def _truth(gaps_KP: FloatArray, facts: Sequence[PairFacts]) -> TruthNumbers | None:
    """None where the truth is not known of every pair, or tells none apart."""
    quality_P = np.array([np.nan if pair.quality_gap is None else pair.quality_gap for pair in facts])
    differs_P = quality_P != 0
    if np.isnan(quality_P).any() or not differs_P.any():
        return None
    labels_P = (quality_P[differs_P] > 0).astype(np.float64)  # 1: the labels are with the truth
    right_KP = _preferences(gaps_KP[:, differs_P])
    agreement_KP = np.where(labels_P == 1, right_KP, 1 - right_KP)
    return TruthNumbers(_rate(agreement_KP), _rate(np.broadcast_to(labels_P, agreement_KP.shape)))


def _rate(values_KP: FloatArray) -> Estimate:
    return estimates.rate(values_KP, rows="pairs")
