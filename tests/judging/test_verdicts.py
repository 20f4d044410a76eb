"""From answers to verdicts, and from other tools' rows to verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.errors import DataError
from trimtab.judging.judges import FunctionJudge, ScriptedJudge
from trimtab.judging.rows import Place
from trimtab.judging.verdicts import Annotations, annotations_from_rows, canaries, judge_answers, pair_answers, spread
from trimtab.records import Answer, Verdict

ROW = {
    "instruction": "do", "output_1": "old", "output_2": "new", "generator_1": "base", "generator_2": "model",
    "annotator": "judge", "preference": 1.25, "dataset": "koala",
}  # fmt: skip


def answers(generator: str, **outputs: str) -> list[Answer]:
    return [Answer(prompt, f"do {prompt}", output, generator, "family") for prompt, output in outputs.items()]


def annotations(*rows: dict[str, Any]) -> Annotations:
    return annotations_from_rows((Place(Path("a.json"), n), row) for n, row in enumerate(rows, start=1))


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in ROW.items() if key != name}


def test_answers_are_joined_by_prompt_in_the_order_of_the_baseline() -> None:
    pairing = pair_answers(answers("base", a="1", b="2", c="3"), answers("model", d="4", c="5", a="6"))
    assert [(old.output, new.output) for old, new in pairing.pairs] == [("1", "6"), ("3", "5")]
    assert (pairing.only_baseline, pairing.only_model, pairing.n_missing) == (("b",), ("d",), 2)


@given(st.sets(st.integers(0, 12)), st.sets(st.integers(0, 12)))
@settings(max_examples=50, deadline=None)
def test_every_prompt_is_accounted_for(old: set[int], new: set[int]) -> None:
    base, model = (answers(g, **{f"p{i}": "x" for i in ids}) for g, ids in (("base", old), ("model", new)))
    if not old & new:
        with pytest.raises(DataError, match="none of the"):
            pair_answers(base, model)
        return
    pairing = pair_answers(base, model)
    assert len(pairing.pairs) == len(old & new)
    assert len(pairing.pairs) + pairing.n_missing == len(old | new)


def test_a_prompt_answered_twice_is_refused() -> None:
    with pytest.raises(DataError, match="the model answered prompt 'a' twice"):
        pair_answers(answers("base", a="1"), [*answers("model", a="1"), *answers("model", a="2")])


def test_verdicts_carry_everything() -> None:
    told = judge_answers(
        ScriptedJudge({"a": 2.0, "b": None}), answers("base", a="1", b="2"), answers("model", b="4", a="3")
    )
    assert told[0] == Verdict("a", "do a", "1", "3", "base", "model", "scripted", 2.0, "family")
    assert told[1].preference is None


def test_identical_answers_tie_without_a_call() -> None:
    calls: list[str] = []

    def judge(prompt: str, _baseline: str, _model: str) -> float:
        calls.append(prompt)
        return 1.0

    told = judge_answers(FunctionJudge("j", judge), answers("base", a="same", b="1"), answers("model", a="same", b="2"))
    assert [v.preference for v in told] == [1.5, 1.0]
    assert calls == ["b"]


def test_a_judge_out_of_range_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError, match="said 7"):
        judge_answers(ScriptedJudge({"a": 7.0}), answers("base", a="1"), answers("model", a="2"))


def test_canaries_sing_for_a_broken_judge() -> None:
    base = answers("base", a="right", b="wrong")
    quality = {"right": 1.0, "wrong": 0.5}
    sound = FunctionJudge(
        "sound", lambda _, old, new: 1.5 + 0.5 * ((d := quality.get(new, 0) - quality.get(old, 0)) > 0) - 0.5 * (d < 0)
    )
    told = canaries(sound, base, prompts=2)
    assert {name: [v.preference for v in verdicts] for name, verdicts in told.items()} == {
        "baseline": [1.5, 1.5], "constant": [1.0, 1.0], "empty": [1.0, 1.0], "instructing": [1.0, 1.0],
    }  # fmt: skip
    assert {v.output_2 for v in told["empty"]} == {""}
    prefers_second = canaries(FunctionJudge("position-biased", lambda *_: 2.0), base, prompts=2)
    assert [v.preference for v in prefers_second["baseline"]] == [2.0, 2.0]  # really asked, so the bias shows


def test_canaries_are_spread_over_the_benchmark() -> None:
    base = answers("base", **{f"p{i}": "x" for i in range(9)})
    assert [one.prompt_id for one in spread(base, 3)] == ["p0", "p4", "p8"]
    assert [one.prompt_id for one in spread(base, 1)] == ["p0"]
    assert spread(base, 50) == base
    assert len(canaries(ScriptedJudge({}), base, prompts=4)["constant"]) == 4


def test_alpaca_eval_rows_older_and_newer() -> None:
    older = ROW | {"price_per_example": 0.25, "time_per_example": 2.0, "raw_completion": {"logprobs": []}}
    newer = ROW | {
        "instruction": "do more",
        "preference_price_per_example": 0.5,
        "preference_time_per_example": 1.0,
        "preference_version": "0.6.6",
    }
    told = annotations(older, newer)
    assert told.verdicts[0] == Verdict("do", "do", "old", "new", "base", "model", "judge", 1.25, "koala")
    assert (told.price, told.seconds, told.n_repeated) == (0.75, 3.0, 0)
    assert annotations(ROW).price is None


def test_own_verdicts_come_back() -> None:
    verdict = Verdict("id 7", "do", "old", "new", "base", "model", "oracle", 1.5, "math")
    assert annotations(verdict.to_json()).verdicts == (verdict,)


def test_no_verdict_is_kept_as_none() -> None:
    rows = [ROW | {"instruction": str(n), "preference": p} for n, p in enumerate((None, float("nan"), -1, 0, 2))]
    assert [v.preference for v in annotations(*rows).verdicts] == [None, None, -1, 0, 2]


def test_judged_twice_the_last_one_stays() -> None:
    told = annotations(ROW, ROW | {"instruction": "other"}, ROW | {"preference": 2.0}, ROW | {"annotator": "another"})
    assert [(v.instruction, v.annotator, v.preference) for v in told.verdicts] == [
        ("do", "judge", 2.0),
        ("other", "judge", 1.25),
        ("do", "another", 1.25),
    ]
    assert told.n_repeated == 1


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (without("output_2"), "a.json, row 2 has no 'output_2'; it has instruction, output_1"),
        (without("generator_1"), "row 2 has no 'generator_1'"),
        (without("preference"), "row 2 has no 'preference'"),
        (ROW | {"output_1": None}, "row 2: 'output_1' is null, not text"),
        (ROW | {"preference": "1.5"}, "row 2: 'preference' is '1.5', not a number"),
        (ROW | {"preference": True}, "row 2: 'preference' is True, not a number"),
    ],
)
def test_mistakes_are_named(row: dict[str, Any], complaint: str) -> None:
    with pytest.raises(DataError, match=complaint) as error:
        annotations(ROW, row)
    assert error.value.remedy
