"""The sentences of a reward model: does it rank as the labels do, how sure should it be, does it like length?"""

from __future__ import annotations

from trimtab.analysis.selection import MIN_PAIRS
from trimtab.records import Estimate
from trimtab.reporting.numbers.reward import LengthNumbers, RewardNumbers, TruthNumbers
from trimtab.reporting.numbers.training import HeldoutNumbers
from trimtab.reporting.sections import Sentence, Tone, sentence
from trimtab.reporting.text import counted, interval, number, with_sign

NOTHING_HELD_OUT = (
    "**Whether it ranks as the labels do was not measured**: no pair was kept out of training. "
    "Train again with --data.holdout 0.1."
)


def reward(heldout: HeldoutNumbers | None, numbers: RewardNumbers | None) -> list[Sentence]:
    """The answer first; below ten pairs it is that they are too few."""
    if heldout is None or numbers is None or heldout.after.accuracy.value is None:
        return [sentence(NOTHING_HELD_OUT, "warn")]
    accuracy = heldout.after.accuracy
    if accuracy.n < MIN_PAIRS:
        pairs = counted(accuracy.n, "pair")
        return [sentence(f"{pairs} kept out of training: **too few** to say how many it ranks right.", "warn")]
    return [
        _ranking(accuracy, n_ties=heldout.after.n_ties),
        _temperature(numbers.temperature),
        *length(heldout, numbers),
        *([] if numbers.truth is None else [_truth(numbers.truth)]),
    ]


def length(heldout: HeldoutNumbers | None, numbers: RewardNumbers | None) -> list[Sentence]:
    """Whether it likes length more than the labels do, where enough pairs can say."""
    if heldout is None or numbers is None or numbers.length is None or heldout.after.accuracy.n < MIN_PAIRS:
        return []
    return [_length(numbers.length)]


def _ranking(accuracy: Estimate, *, n_ties: int) -> Sentence:
    share = accuracy.scaled(100)
    subject = f"{accuracy.n_seeds} models rank" if accuracy.n_seeds > 1 else "it ranks"
    ties = f", {number(n_ties)} ties counted as half" if n_ties else ""
    text = (
        f"On {number(accuracy.n)} pairs kept out of training {subject} **{number(share.value)} %** as their labels do "
        f"(95 % CI {interval(share.ci95)}{ties}; 50 % is chance)"
    )
    match accuracy.direction(0.5):
        case "above":
            return sentence(f"{text}.", "good")
        case "below":
            return sentence(f"{text}: **worse than chance**.", "bad")
        case _:
            return sentence(f"{text}: **not distinguishable from chance**.", "warn")


def _temperature(heat: Estimate) -> Sentence:
    if heat.value is None:
        return sentence("No temperature makes σ(reward gap) the share of pairs that it ranks right.", "warn")
    text = (
        f"Read as probabilities, its reward gaps need a temperature of **{number(heat.value, digits=2)}** "
        f"({interval(heat.ci95, digits=2)}; 1 is calibrated)"
    )
    tone: Tone = "warn"
    match heat.direction(1.0):
        case "above":
            verdict = "it is **over-confident**: divide its scores by that"
        case "below":
            verdict = "it is **under-confident**: divide its scores by that"
        case _:
            verdict, tone = "over- or under-confidence is **not distinguishable**", "even"
    return sentence(f"{text}: {verdict}.", tone)


def _length(length: LengthNumbers) -> Sentence:
    by_reward, by_labels, lean = (part.scaled(100) for part in (length.by_reward, length.by_labels, length.lean))
    longer, shorter = (part.scaled(100) for part in (length.accuracy_longer, length.accuracy_shorter))
    text = (
        f"It prefers the longer response in {number(by_reward.value)} % of pairs, the labels in "
        f"{number(by_labels.value)} % ({with_sign(lean.value)} points, {interval(lean.ci95)}); it is right on "
        f"{number(longer.value)} % where the longer one was chosen and on {number(shorter.value)} % where the shorter"
    )
    match lean.direction(0.0) if lean.n >= MIN_PAIRS else "unknown":
        case "above":
            return sentence(f"{text}: it **likes length** more than the labels do.", "warn")
        case "below":
            return sentence(f"{text}: it **likes length less** than the labels do.", "plain")
        case "unknown":
            return sentence(f"{text}: too few pairs to speak of a bias.", "even")
        case _:
            return sentence(f"{text}: no more and no less than the labels, as far as these pairs tell.", "even")


def _truth(truth: TruthNumbers) -> Sentence:
    by_reward, by_labels = truth.by_reward.scaled(100), truth.by_labels.scaled(100)
    return sentence(
        f"It agrees with the oracle on **{number(by_reward.value)} %** of the {number(by_reward.n)} pairs whose true "
        f"qualities differ (95 % CI {interval(by_reward.ci95)}); the labels that it learned from on "
        f"{number(by_labels.value)} %."
    )
