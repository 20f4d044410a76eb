"""Demonstrations: quality is mixed, and length says nothing about it."""

from __future__ import annotations

import pytest

from trimtab.windtunnel import FAMILIES, score, tasks, words
from trimtab.windtunnel.demonstrations import FILLER, MIX, answer, demonstration, with_filler
from trimtab.windtunnel.world import luck

DRAWN = tasks(2400, seed=0, split="train")


def test_shares_of_the_modes_are_a_distribution() -> None:
    assert sum(MIX.values()) == pytest.approx(1.0)


def test_right_answers_and_flawed_ones_are_equally_long_on_average() -> None:
    """Undressed words by mode, weighted by the mix: within a quarter of a word, where single modes differ by eight."""
    rng = luck(0)
    mean = {mode: sum(words(answer(t, rng, mode=mode)) for t in DRAWN) / len(DRAWN) for mode in MIX}
    flawed = sum(MIX[mode] * mean[mode] for mode in MIX if mode != "right") / (1 - MIX["right"])
    assert flawed == pytest.approx(mean["right"], abs=0.25)
    assert mean["twice"] == pytest.approx(2 * mean["right"], rel=0.03)


def test_quality_and_length_are_uncorrelated_over_demonstrations() -> None:
    rng = luck(1)
    shown = [(score(t, text).total, words(text)) for t in DRAWN for text in [demonstration(t, rng)]]
    n = len(shown)
    mean_q, mean_w = sum(q for q, _ in shown) / n, sum(w for _, w in shown) / n
    covariance = sum((q - mean_q) * (w - mean_w) for q, w in shown) / n
    spread = (sum((q - mean_q) ** 2 for q, _ in shown) * sum((w - mean_w) ** 2 for _, w in shown)) ** 0.5 / n
    assert abs(covariance / spread) < 0.1
    assert 0.3 < mean_q < 0.5


def test_a_demonstration_is_a_function_of_its_generator() -> None:
    first, second = ([demonstration(t, luck(7)) for t in DRAWN[:40]] for _ in range(2))
    assert first == second


def test_dressing_keeps_the_text_and_never_repeats_itself() -> None:
    rng = luck(2)
    for _ in range(500):
        text = with_filler("CORE", rng)
        told = [filler for filler in FILLER if filler in text]
        left = text
        for filler in told:
            left = left.replace(filler, "", 1)
        assert left.split() == ["CORE"]
        assert len(told) <= 3


@pytest.mark.parametrize("family", FAMILIES)
def test_a_wrong_answer_is_wrong_and_well_formed(family: str) -> None:
    rng = luck(3)
    for task in (t for t in DRAWN if t.family == family):
        found = score(task, answer(task, rng, mode="wrong"))
        assert found.correctness < 1.0
        assert (found.format, found.coherence) == (1.0, 1.0)
