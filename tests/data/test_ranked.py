"""Rows with several scored responses: every published form, every pair and every row that makes none by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from trimtab.data.formats import detect_format
from trimtab.data.pair_rules import Rule
from trimtab.data.problems import Reason, RowProblem
from trimtab.data.ranked import PairMaker, gather
from trimtab.errors import DataError
from trimtab.records import Message, Pair, Ranked

QUESTION = (Message("user", "Why?"),)
TEXTS = ("a", "b", "c", "d")


def ultrafeedback(scores: list[Any]) -> dict[str, Any]:
    completions = [
        {"model": f"m{i}", "response": text, "overall_score": score, "annotations": {"helpfulness": {"Rating": "5"}}}
        for i, (text, score) in enumerate(zip(TEXTS, scores, strict=False))
    ]
    return {"source": "evol", "instruction": "Why?", "models": ["m0", "m1"], "completions": completions}


FORMS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "UltraFeedback": (ultrafeedback([4.0, 9.5, 4.0, 1.0]), {}),
    "Nectar": (
        {
            "prompt": "\n\nHuman: Why?\n\nAssistant: ",
            "answers": [{"answer": t, "model": "m", "rank": r} for t, r in zip(TEXTS, (2, 1, 2, 3), strict=True)],
            "turns": 1,
        },
        {},
    ),
    "lists": ({"prompt": "Why?", "completions": list(TEXTS), "scores": [4, 9.5, 4, 1]}, {}),
    "lists of messages": (
        {
            "prompt": [{"role": "user", "content": "Why?"}],
            "completions": [[{"role": "assistant", "content": text}] for text in TEXTS],
            "ranks": [2, 1, 2, 3],
        },
        {},
    ),
    "by hand": (
        {"q": "Why?", "samples": list(TEXTS), "marks": [4, 9.5, 4, 1]},
        {"prompt": "q", "completions": "samples", "scores": "marks"},
    ),
}


def ranked(row: dict[str, Any], columns: dict[str, str] | None = None) -> Ranked:
    record = detect_format([row], source="r.jsonl", columns=columns or None).to_record("r.jsonl:1", row)
    assert isinstance(record, Ranked), record
    return record


def made(row: Ranked, *, rule: Rule = "all", least_gap: float = 0.0) -> list[Pair | RowProblem]:
    return list(PairMaker(rule, least_gap).pairs(row))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_makes_the_same_pairs(form: str) -> None:
    """b is best, a and c tie, d is worst: of six two-sets one is a tie."""
    row = ranked(*FORMS[form])
    assert row.prompt == QUESTION
    pairs = [pair for pair in made(row) if isinstance(pair, Pair)]
    assert [(pair.id, pair.chosen, pair.rejected) for pair in pairs] == [
        ("r.jsonl:1/2-1", "b", "a"),
        ("r.jsonl:1/2-3", "b", "c"),
        ("r.jsonl:1/2-4", "b", "d"),
        ("r.jsonl:1/1-4", "a", "d"),
        ("r.jsonl:1/3-4", "c", "d"),
    ]
    gaps = [1, 1, 2, 1, 1] if form in ("Nectar", "lists of messages") else [5.5, 5.5, 8.5, 3, 3]
    assert [pair.score_gap for pair in pairs] == gaps


def test_rules_and_the_least_gap() -> None:
    row = ranked(*FORMS["lists"])
    ids = {rule: [pair.id.partition("/")[2] for pair in made(row, rule=rule)] for rule in ("best_worst", "adjacent")}
    assert ids == {"best_worst": ["2-4"], "adjacent": ["2-1", "3-4"]}
    assert [pair.id.partition("/")[2] for pair in made(row, least_gap=5.0)] == ["2-1", "2-3", "2-4"]


def test_ties_and_contradictory_and_missing_scores_are_counted() -> None:
    """a stands twice with 4 and 2, b has no score; c and d tie, e is below both."""
    row = ranked({"prompt": "Why?", "completions": ["a", "b", "a ", "c", "d", "e"], "scores": [4, "N/A", 2, 3, 3, 1]})
    maker = PairMaker("all")
    assert [pair.id.partition("/")[2] for pair in maker.pairs(row)] == ["4-6", "5-6"]
    assert maker.counts.notes("all") == [
        "1 prompt with scored responses made 2 pairs (all); 1 tie",
        "1 response with two scores that contradict each other (first: r.jsonl:1): left out",
        "1 response without a score: left out",
    ]
    maker.counts.clear()
    assert maker.counts.notes("all") == []


@pytest.mark.parametrize(
    ("completions", "scores", "reason", "detail"),
    [
        (["a"], [1], Reason.ONE_RESPONSE, "1 response, of which 1 can be compared"),
        (["a", "a"], [1, 2], Reason.ONE_RESPONSE, "2 responses, of which 0 can be compared"),
        (["a", "b"], [None, 2], Reason.ONE_RESPONSE, "2 responses, of which 1 can be compared"),
        (["a", "b", "c"], [2, 2, 2], Reason.NO_PREFERENCE, "all 3 scores are equal"),
        (["a", "b"], [2, 2.5], Reason.NO_PREFERENCE, "no two scores are 1 apart"),
    ],
)
def test_a_row_without_a_pair_is_named_with_the_reason(
    completions: list[str], scores: list[Any], reason: Reason, detail: str
) -> None:
    row = ranked({"prompt": "Why?", "completions": completions, "scores": scores})
    assert made(row, least_gap=1.0) == [RowProblem("r.jsonl:1", reason, detail)]


def test_a_score_without_an_end_is_none() -> None:
    """A gap of it would be infinite."""
    for score in (math.inf, -math.inf, "Infinity", math.nan):
        row = ranked({"prompt": "Why?", "completions": ["a", "b", "c"], "scores": [score, 2, 1]})
        (pair,) = made(row)
        assert isinstance(pair, Pair)
        assert (pair.chosen, pair.rejected, pair.score_gap) == ("b", "c", 1.0)


def test_helpsteer_2_marks_the_turns_of_a_longer_prompt() -> None:
    prompt = "Hello.\n<extra_id_1>Assistant\nHello! What is it?\n<extra_id_1>User\nWhy?\n\n1. a"
    row = ranked({"prompt": prompt, "response": "a", "helpfulness": 3})
    assert row.prompt == (
        Message("user", "Hello."),
        Message("assistant", "Hello! What is it?"),
        Message("user", "Why?\n\n1. a"),
    )
    assert not row.plain
    alone = ranked({"prompt": " What is <extra_id_1>? ", "response": "a", "helpfulness": 3})
    assert alone.prompt == (Message("user", " What is <extra_id_1>? "),)


def test_lists_of_unlike_length_are_a_problem_of_their_row() -> None:
    row = {"prompt": "Why?", "completions": ["a", "b"], "scores": [1]}
    record = detect_format([row], source="r.jsonl").to_record("r.jsonl:1", row)
    assert record == RowProblem("r.jsonl:1", Reason.UNREADABLE, "2 in 'completions' and 1 in 'scores'")


def test_reward_bench_2_puts_every_chosen_above_every_rejected() -> None:
    row = ranked({"prompt": "Why?", "chosen": ["a"], "rejected": ["b", "c", "d"], "num_correct": 1})
    assert [pair.id.partition("/")[2] for pair in made(row)] == ["1-2", "1-3", "1-4"]


def test_a_response_a_row_is_gathered_by_its_prompt() -> None:
    """HelpSteer2: rows 1 to 2 and 3 to 5 share a prompt, row 6 stands alone; a problem between ends a group."""
    rows = [
        {"prompt": prompt, "response": text, "helpfulness": score, "verbosity": 1}
        for prompt, text, score in [
            ("Why?", "a", 1), ("Why?", "b", 3), ("How?", "c", 0), ("How?", "d", 2), ("How?", "e", 2), ("Who?", "f", 4),
        ]
    ]  # fmt: skip
    shape = detect_format(rows, source="h.jsonl")
    records = list(gather(shape.to_record(f"h.jsonl:{i + 1}", row) for i, row in enumerate(rows)))
    assert [(record.id, record.scores) for record in records if isinstance(record, Ranked)] == [
        ("h.jsonl:1..2", (1.0, 3.0)),
        ("h.jsonl:3..5", (0.0, 2.0, 2.0)),
        ("h.jsonl:6", (4.0,)),
    ]
    outcomes = [outcome for record in records if isinstance(record, Ranked) for outcome in made(record)]
    assert [outcome.id for outcome in outcomes] == [
        "h.jsonl:1..2/2-1",
        "h.jsonl:3..5/2-1",
        "h.jsonl:3..5/3-1",
        "h.jsonl:6",
    ]
    problem = RowProblem("h.jsonl:9", Reason.UNREADABLE)
    single = Ranked("h.jsonl:1", QUESTION, (Message("assistant", "a"),), (1.0,))
    assert [record.id for record in gather([single, problem, single])] == ["h.jsonl:1", "h.jsonl:9", "h.jsonl:1"]


def test_pairs_and_unpaired_rows_are_not_taken_for_ranked() -> None:
    pair = {"prompt": "Why?", "chosen": "a", "rejected": "b", "score_chosen": 8.0, "score_rejected": 3}
    record = detect_format([pair], source="p").to_record("p:1", pair)
    assert isinstance(record, Pair)
    assert record.score_gap == 5.0
    turned = pair | {"score_chosen": 1.0}
    record = detect_format([turned], source="p").to_record("p:1", turned)
    assert isinstance(record, Pair)
    assert record.score_gap is None
    verdict = {"prompt": "Why?", "completion": "a", "label": True}
    assert detect_format([verdict], source="p").name == "unpaired"


def test_columns_say_what_is_missing() -> None:
    with pytest.raises(DataError, match="both completions and scores must be named"):
        detect_format([{"q": "Why?", "s": []}], source="x", columns={"prompt": "q", "completions": "s"})


def test_a_gap_is_never_infinite() -> None:
    row = {"prompt": "Why?", "chosen": "a", "rejected": "b", "score_chosen": math.inf, "score_rejected": 0}
    record = detect_format([row], source="p").to_record("p:1", row)
    assert isinstance(record, Pair)
    assert record.score_gap is None
