"""Judges that need no network, by hand."""

from __future__ import annotations

from trimtab.judging.judges import Comparison, FunctionJudge, Judge, ScriptedJudge


def ask(judge: Judge, *pairs: tuple[str, str]) -> list[float | None]:
    return judge.preferences([Comparison(f"p{n}", "do", old, new) for n, (old, new) in enumerate(pairs)])


def test_a_function_is_a_judge() -> None:
    judge = FunctionJudge("longer", lambda prompt, baseline, model: 2.0 if len(model) > len(baseline) else 1.0)
    assert ask(judge, ("aa", "a"), ("a", "aa")) == [1.0, 2.0]


def test_a_function_is_told_the_prompt() -> None:
    judge = FunctionJudge("first", lambda prompt, baseline, model: 2.0 if prompt == "p0" else None)
    assert ask(judge, ("a", "b"), ("a", "b")) == [2.0, None]


def test_the_fake_says_what_it_was_told() -> None:
    assert ask(ScriptedJudge({"p0": 1.25, "p1": None}), ("a", "b"), ("a", "b"), ("a", "b")) == [1.25, None, None]
