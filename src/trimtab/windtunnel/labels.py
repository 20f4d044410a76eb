"""Preference labels with two dials, and the judges that know the truth.

A labeller prefers answer a to answer b with the Bradley-Terry probability

    P(a over b) = σ( SCALE · (q_a − q_b) + length_bias · (words_a − words_b) )

where q is the oracle's total and words are counted at white space. `length_bias` (λ) is therefore in nats a word: at
λ = .3 three polite words more outweigh a quality lead of .15. `label_noise` then turns the label round with its own
probability, whatever the answers are. Bradley and Terry 1952; Dubois et al. 2404.04475 for length as a term of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from trimtab.errors import ConfigError
from trimtab.records import Message, Pair
from trimtab.windtunnel.oracle import score
from trimtab.windtunnel.world import Task, luck

# Nats that separate a perfect answer from a worthless one: such a pair is labelled rightly 99.75 % of the time.
SCALE: Final = 6.0


@dataclass(frozen=True, slots=True)
class LabelledPairs:
    """Pairs, and how many candidates gave none: every pair of answers is accounted for."""

    pairs: tuple[Pair, ...]
    identical: int  # both answers are the same text
    empty: int  # at least one answer has no text
    tied: int  # the labeller is exactly indifferent: equal quality and no length term


def label(
    tasks: Sequence[Task],
    answers_a: Sequence[str],
    answers_b: Sequence[str],
    *,
    length_bias: float,
    label_noise: float,
    seed: int,
) -> LabelledPairs:
    """Draw one preference label for every two answers to a task.

    `length_bias` in nats a word (0 = none), `label_noise` in [0, 0.5]. The draw of a row depends on `seed` and the
    row's number alone, so two dial settings label the same answers with the same luck. `meta` of a pair holds its
    family, the true quality of both sides and the labeller's probability for the side that became `chosen`.

    Raises `ConfigError` for a dial out of range and `ValueError` for sequences of unequal length.
    """
    if not math.isfinite(length_bias):
        raise ConfigError(
            f"length_bias is {length_bias}", remedy="give a finite number of nats a word, for example 0.3"
        )
    if not 0.0 <= label_noise <= 0.5:
        raise ConfigError(f"label_noise is {label_noise}", remedy="give a share of turned labels between 0 and 0.5")
    pairs: list[Pair] = []
    identical = empty = tied = 0
    for index, (task, answer_a, answer_b) in enumerate(zip(tasks, answers_a, answers_b, strict=True)):
        a, b = answer_a.strip(), answer_b.strip()
        if not a or not b:
            empty += 1
            continue
        if a == b:
            identical += 1
            continue
        nats = _nats(task, a, b, length_bias=length_bias)
        if nats == 0.0:
            tied += 1
            continue
        draw = luck("trimtab label", seed, index)
        a_wins = draw.random() < _sigmoid(nats)
        if draw.random() < label_noise:
            a_wins = not a_wins
        pairs.append(_pair(task, a, b, nats) if a_wins else _pair(task, b, a, -nats))
    return LabelledPairs(tuple(pairs), identical=identical, empty=empty, tied=tied)


def oracle_preference(task: Task, baseline: str, answer: str) -> float:
    """The truth as a verdict: 2 if `answer` has the higher true quality, 1 if `baseline` has, 1.5 if they are equal."""
    difference = score(task, answer).total - score(task, baseline).total
    return 1.5 + 0.5 * ((difference > 0) - (difference < 0))


def preference(task: Task, baseline: str, answer: str, *, length_bias: float) -> float:
    """The length-biased judge's verdict in [1, 2]: 1 + P(`answer` over `baseline`), as AlpacaEval writes it.

    With `length_bias` 0 this is the labeller without bias, not `oracle_preference`: it knows doubt, the oracle none.
    """
    return 1.0 + _sigmoid(_nats(task, answer, baseline, length_bias=length_bias))


def words(text: str) -> int:
    """Length in the unit of `length_bias`."""
    return len(text.split())


def _nats(task: Task, a: str, b: str, *, length_bias: float) -> float:
    return SCALE * (score(task, a).total - score(task, b).total) + length_bias * (words(a) - words(b))


def _sigmoid(x: float) -> float:
    """σ(x) without overflow."""
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))


def _pair(task: Task, chosen: str, rejected: str, nats: float) -> Pair:
    meta = {
        "family": task.family,
        "quality_chosen": f"{score(task, chosen).total:.4f}",
        "quality_rejected": f"{score(task, rejected).total:.4f}",
        "probability": f"{_sigmoid(nats):.4f}",
    }
    return Pair(task.id, (Message("user", task.prompt),), chosen, rejected, meta=tuple(sorted(meta.items())))
