"""Labels: Bradley-Terry on true quality, and two dials whose effect is known in advance."""

from __future__ import annotations

import math

import pytest

from trimtab.errors import ConfigError
from trimtab.windtunnel import LabelledPairs, Task, label, oracle_preference, preference, score
from trimtab.windtunnel.labels import SCALE

SUM = Task("math-0", "math", "What is 7 plus 5?", "7 plus 5", "7 plus 5 is {number}.", (("number", "12"),), "7 plus 5")
RIGHT = "7 plus 5 is 12."  # total 1.00, 5 words
TWICE = "7 plus 5 is 12. 7 plus 5 is 12."  # total 0.50, 10 words
WRONG = "7 plus 5 is 13."  # total 0.15, 5 words
PADDED = "7 plus 5 is 12. Have a nice day."  # total 1.00, 9 words
N = 4000


def _many(a: str, b: str, *, length_bias: float = 0.0, label_noise: float = 0.0, seed: int = 0) -> LabelledPairs:
    return label([SUM] * N, [a] * N, [b] * N, length_bias=length_bias, label_noise=label_noise, seed=seed)


def _share(labelled: LabelledPairs, text: str) -> float:
    return sum(pair.chosen == text for pair in labelled.pairs) / len(labelled.pairs)


def _near(found: float, expected: float) -> bool:
    """Within 4.5 binomial standard errors: fails by chance once in 150,000 seeds, and this seed is fixed."""
    return abs(found - expected) < 4.5 * math.sqrt(expected * (1 - expected) / N)


def test_frequencies_are_bradley_terry() -> None:
    """σ(6 · (0.50 − 0.15)) = σ(2.1) = .8909;  σ(6 · (1 − 0.5)) = σ(3) = .9526."""
    assert SCALE == 6.0
    assert _near(_share(_many(TWICE, WRONG), TWICE), 0.8909)
    assert _near(_share(_many(WRONG, TWICE), TWICE), 0.8909)
    assert _near(_share(_many(RIGHT, TWICE), RIGHT), 0.9526)


def test_length_bias_adds_its_nats_a_word() -> None:
    """Equal quality, 4 words more: σ(.3 · 4) = σ(1.2) = .7685.  Quality against it: σ(3 − .3 · 5) = σ(1.5) = .8176."""
    assert _near(_share(_many(PADDED, RIGHT, length_bias=0.3), PADDED), 0.7685)
    assert _near(_share(_many(RIGHT, TWICE, length_bias=0.3), RIGHT), 0.8176)
    assert _near(_share(_many(PADDED, RIGHT, length_bias=-0.3), PADDED), 1 - 0.7685)


def test_noise_turns_labels_with_its_own_probability() -> None:
    """.9526 · (1 − .2) + (1 − .9526) · .2 = .7716;  at .5 nothing of the truth is left."""
    assert _near(_share(_many(RIGHT, TWICE, label_noise=0.2), RIGHT), 0.7716)
    assert _near(_share(_many(RIGHT, TWICE, label_noise=0.5), RIGHT), 0.5)


def test_every_candidate_is_accounted_for() -> None:
    answers_a = [RIGHT, RIGHT, "", "  ", RIGHT, WRONG]
    answers_b = [RIGHT, RIGHT + " ", RIGHT, RIGHT, PADDED, RIGHT]
    found = label([SUM] * 6, answers_a, answers_b, length_bias=0.0, label_noise=0.0, seed=0)
    assert (len(found.pairs), found.identical, found.empty, found.tied) == (1, 2, 2, 1)
    biased = label([SUM] * 6, answers_a, answers_b, length_bias=0.3, label_noise=0.0, seed=0)
    assert (len(biased.pairs), biased.tied) == (2, 0)


def test_a_pair_carries_its_prompt_and_its_truth() -> None:
    pair = _many(RIGHT, WRONG).pairs[0]
    assert [(m.role, m.content) for m in pair.prompt] == [("user", "What is 7 plus 5?")]
    assert not pair.plain
    truth = {RIGHT: "1.0000", WRONG: "0.1500"}
    meta = dict(pair.meta)
    assert (meta["quality_chosen"], meta["quality_rejected"]) == (truth[pair.chosen], truth[pair.rejected])
    assert meta["family"] == "math"
    assert float(meta["probability"]) == pytest.approx(0.9939 if pair.chosen == RIGHT else 0.0061, abs=1e-4)  # σ(5.1)


def test_two_dial_settings_label_with_the_same_luck() -> None:
    plain, biased = _many(RIGHT, TWICE), _many(RIGHT, TWICE, length_bias=0.3)
    assert plain == _many(RIGHT, TWICE)
    assert plain != _many(RIGHT, TWICE, seed=1)
    # The bias favours the longer answer, so it can only turn labels towards it.
    assert all(q.chosen == TWICE for p, q in zip(plain.pairs, biased.pairs, strict=True) if p.chosen == TWICE)


@pytest.mark.parametrize(
    ("bias", "noise"), [(math.nan, 0.0), (math.inf, 0.0), (0.0, -0.1), (0.0, 0.6), (0.0, math.nan)]
)
def test_dials_out_of_range_are_refused_with_a_remedy(bias: float, noise: float) -> None:
    with pytest.raises(ConfigError) as caught:
        label([SUM], [RIGHT], [WRONG], length_bias=bias, label_noise=noise, seed=0)
    assert caught.value.remedy


def test_oracle_verdicts() -> None:
    assert oracle_preference(SUM, WRONG, RIGHT) == 2.0
    assert oracle_preference(SUM, RIGHT, WRONG) == 1.0
    assert oracle_preference(SUM, RIGHT, PADDED) == 1.5


def test_the_biased_judge_knows_truth_and_likes_length() -> None:
    assert preference(SUM, RIGHT, PADDED, length_bias=0.0) == 1.5
    assert preference(SUM, RIGHT, PADDED, length_bias=0.3) == pytest.approx(1.7685, abs=1e-4)  # 1 + σ(1.2)
    assert preference(SUM, TWICE, RIGHT, length_bias=0.0) == pytest.approx(1.9526, abs=1e-4)  # 1 + σ(3)
    assert preference(SUM, RIGHT, TWICE, length_bias=0.3) == pytest.approx(1.1824, abs=1e-4)  # 1 + σ(−1.5)
    both = preference(SUM, WRONG, TWICE, length_bias=0.3) + preference(SUM, TWICE, WRONG, length_bias=0.3)
    assert both == pytest.approx(3.0)


def test_an_absurd_bias_saturates_without_overflow() -> None:
    assert preference(SUM, RIGHT, PADDED, length_bias=1e6) == 2.0
    assert preference(SUM, PADDED, RIGHT, length_bias=1e6) == 1.0
    assert score(SUM, PADDED) == score(SUM, RIGHT)
