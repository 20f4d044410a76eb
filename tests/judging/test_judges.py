"""Judges that need no network, by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.judging.judges import FunctionJudge, Judge, LengthBiasedJudge, ScoredJudge, ScriptedJudge

QUALITY = {"right": 1.0, "half": 0.5, "half, at length": 0.5, "wrong": 0.0}


def quality(_prompt: str, text: str) -> float:
    return QUALITY[text]


def ask(judge: Judge, baseline: str, model: str) -> float | None:
    return judge.preference("p", instruction="do", baseline=baseline, model=model)


def test_an_oracle_knows_no_doubt_and_no_length() -> None:
    oracle = ScoredJudge("oracle", quality)
    assert ask(oracle, "wrong", "half") == 2
    assert ask(oracle, "right", "half") == 1
    assert ask(oracle, "half", "half, at length") == 1.5


def test_the_score_is_asked_about_the_prompt() -> None:
    judge = ScoredJudge("oracle", lambda prompt, text: float(prompt == text))
    assert judge.preference("a", instruction="", baseline="b", model="a") == 2


def test_length_bias_by_hand() -> None:
    # Equal quality, and 15 − 4 = 11 characters longer (two words longer): 1.1 nats (.2 nats).
    judge = LengthBiasedJudge("biased", quality, length_bias=0.1, scale=2.0)
    assert ask(judge, "half", "half, at length") == pytest.approx(1 + 1 / (1 + math.exp(-1.1)))
    unbiased = LengthBiasedJudge("unbiased", quality, length_bias=0.0, scale=2.0)
    assert ask(unbiased, "half", "right") == pytest.approx(1 + 1 / (1 + math.exp(-1)))
    by_words = LengthBiasedJudge("words", quality, length_bias=0.1, scale=2.0, length=lambda text: len(text.split()))
    assert ask(by_words, "half", "half, at length") == pytest.approx(1 + 1 / (1 + math.exp(-0.2)))


@given(st.sampled_from(sorted(QUALITY)), st.sampled_from(sorted(QUALITY)), st.floats(-500, 500), st.floats(0, 1e4))
def test_swapping_the_answers_mirrors_the_preference(a: str, b: str, bias: float, scale: float) -> None:
    for judge in (ScoredJudge("o", quality), LengthBiasedJudge("b", quality, length_bias=bias, scale=scale)):
        there, back = ask(judge, a, b), ask(judge, b, a)
        assert there is not None
        assert back is not None
        assert 1 <= there <= 2
        assert there + back == pytest.approx(3)


def test_a_function_is_a_judge() -> None:
    judge = FunctionJudge("longer", lambda prompt, baseline, model: 2.0 if len(model) > len(baseline) else 1.0)
    assert (ask(judge, "aa", "a"), ask(judge, "a", "aa")) == (1.0, 2.0)


def test_the_fake_says_what_it_was_told() -> None:
    judge = ScriptedJudge({"p": 1.25, "q": None})
    assert ask(judge, "a", "b") == 1.25
    assert judge.preference("other", instruction="", baseline="a", model="b") is None
