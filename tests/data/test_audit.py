"""The audit's arithmetic worked by hand, and every row accounted for."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.data.audit import Auditor, audit, normalise_prompt
from trimtab.data.lengths import length_bias, summarise
from trimtab.data.problems import Reason, RowProblem
from trimtab.errors import DataError
from trimtab.records import Message, Pair, TokenPair


def pair(number: int, chosen: str = "yes", rejected: str = "no", prompt: str | None = None, **other: Any) -> Pair:
    text = f"Why {number}?" if prompt is None else prompt
    return Pair(f"p:{number}", (Message("user", text),), chosen, rejected, **other)


def tokens(
    of: Pair, prompt: int = 3, chosen: tuple[int, ...] = (7, 8, 1), rejected: tuple[int, ...] = (9, 1)
) -> TokenPair:
    return TokenPair(of.id, tuple(range(prompt)), chosen, rejected)


def spell(ids: Any) -> str:
    return " ".join(map(str, ids))


# ---- lengths ---------------------------------------------------------------------------------------------------------


def test_length_summary_by_hand() -> None:
    """1, 2, 3, 4, 10: median 3, mean 20/5; the 95th percentile is at 0.95·4 = 3.8, so 4 + 0.8·(10 − 4) = 8.8."""
    summary = summarise([10, 1, 3, 2, 4])
    assert (summary.median, summary.mean, summary.maximum) == (3.0, 4.0, 10)
    assert summary.p95 == pytest.approx(8.8)


def test_length_bias_by_hand() -> None:
    """Chosen 4, 6, 8 and rejected 4, 2, 6.

    Longer in pairs 2 and 3, equal in pair 1. Means 6 and 4, variances (ddof 1) 4 and 4, pooled deviation 2: d = 1.
    AUC over 9 comparisons: 4 beats 2, ties 4, loses to 6 = 1.5; 6 beats 4 and 2, ties 6 = 2.5; 8 beats all = 3: 7/9.
    """
    bias = length_bias([4, 6, 8], [4, 2, 6])
    assert bias.chosen_longer == pytest.approx(2 / 3)
    assert bias.same_length == pytest.approx(1 / 3)
    assert bias.cohens_d == pytest.approx(1.0)
    assert bias.auc == pytest.approx(7 / 9)


def test_length_bias_where_there_is_none_to_speak_of() -> None:
    assert length_bias([5, 5], [5, 5]).to_json() == {
        "chosen_longer": 0.0, "same_length": 1.0, "cohens_d": None, "auc": 0.5,
    }  # fmt: skip
    assert length_bias([5], [4]).cohens_d is None


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=20))
def test_auc_is_the_count_of_all_comparisons(lengths: list[tuple[int, int]]) -> None:
    chosen, rejected = zip(*lengths, strict=True)
    wins = sum((c > r) + 0.5 * (c == r) for c in chosen for r in rejected)
    bias = length_bias(chosen, rejected)
    assert bias.auc == pytest.approx(wins / len(chosen) ** 2)
    swapped = length_bias(rejected, chosen)
    assert swapped.auc == pytest.approx(1 - bias.auc)
    assert (bias.cohens_d is None) == (swapped.cohens_d is None)
    assert bias.cohens_d is None or math.isclose(swapped.cohens_d or 0.0, -bias.cohens_d)


# ---- rows ------------------------------------------------------------------------------------------------------------

BAD_TEXT: dict[str, tuple[Pair, Reason, str]] = {
    "empty chosen": (pair(1, chosen=""), Reason.EMPTY_RESPONSE, "'chosen' is empty"),
    "blank rejected": (pair(1, rejected=" \n\t"), Reason.EMPTY_RESPONSE, "'rejected' is blank"),
    "identical": (pair(1, "yes ", " yes"), Reason.IDENTICAL, "both are 3 characters"),
    "blank prompt": (pair(1, prompt="  "), Reason.EMPTY_PROMPT, "last user message"),
    "no prompt": (Pair("p:1", (), "yes", "no"), Reason.WRONG_ROLES, "no user message"),
    "system alone": (Pair("p:1", (Message("system", "a"),), "yes", "no"), Reason.WRONG_ROLES, "no user message"),
    "assistant first": (
        Pair("p:1", (Message("assistant", "a"), Message("user", "b")), "yes", "no"),
        Reason.WRONG_ROLES,
        "message 1 is from the assistant, not the user",
    ),
    "user twice": (
        Pair("p:1", (Message("system", "s"), Message("user", "a"), Message("user", "b")), "yes", "no"),
        Reason.WRONG_ROLES,
        "message 3 is from the user, not the assistant",
    ),
    "system late": (
        Pair("p:1", (Message("user", "a"), Message("system", "s")), "yes", "no"),
        Reason.WRONG_ROLES,
        "message 2 is from the system",
    ),
    "ends with the assistant": (
        Pair("p:1", (Message("user", "a"), Message("assistant", "b")), "yes", "no"),
        Reason.WRONG_ROLES,
        "ends with the assistant",
    ),
}


@pytest.mark.parametrize("name", BAD_TEXT)
def test_bad_text_is_dropped_with_its_reason(name: str) -> None:
    bad, reason, detail = BAD_TEXT[name]
    found = audit([pair(0), bad])
    assert (found.n_rows, found.n_kept, found.dropped_ids) == (2, 1, {"p:1"})
    (row,) = found.dropped_rows
    assert row.reason is reason
    assert detail in row.detail


def test_duplicates_keep_the_first_and_contradictions_keep_none() -> None:
    rows = [
        pair(1, "yes", "no", "Why?"),
        pair(2, "yes", "no", "Who?"),
        pair(3, " yes", "no\n", "Why?"),  # the same as 1: white space around responses does not count
        pair(4, "no", "yes", "Why?"),  # the opposite of 1
        pair(5, "no", "yes", "Why?"),  # the same as 4
        pair(6, "no", "yes", "Why ?"),  # another prompt
        pair(7, "yes", "no!", "Why?"),  # another response
    ]
    found = audit(rows)
    assert [(row.id, row.reason.value, row.detail) for row in found.dropped_rows] == [
        ("p:1", "contradictory", "the opposite of p:4"),
        ("p:3", "duplicate", "same as p:1"),
        ("p:4", "contradictory", "the opposite of p:1"),
        ("p:5", "duplicate", "same as p:4"),
    ]
    assert found.n_kept == 3


def test_prompts_that_differ_in_structure_alone_are_not_the_same() -> None:
    one = Pair("p:1", (Message("user", "a"), Message("assistant", "b"), Message("user", "c")), "yes", "no")
    other = Pair("p:2", (Message("system", "a"), Message("user", "bc")), "yes", "no")
    assert audit([one, other]).n_kept == 2


def test_tokens_are_audited_too() -> None:
    seen = [pair(number) for number in range(4)]
    auditor = Auditor()
    assert all(auditor.see(one) is one for one in seen)
    assert auditor.see(RowProblem("p:9", Reason.UNREADABLE, "'chosen' holds nothing")) is None
    assert auditor.see_tokens(tokens(seen[0])) == tokens(seen[0])
    cut = TokenPair("p:1", (1, 2), (7, 7), (7, 7), chosen_cut=True, rejected_cut=True)
    assert auditor.see_tokens(cut) is None
    assert auditor.see_tokens(RowProblem("p:2", Reason.PROMPT_TOO_LONG, "takes 9 tokens, the limit is 8")) is None
    assert auditor.see_tokens(TokenPair("p:3", (1, 2, 3, 4, 5), (7, 7, 7), (8, 8), chosen_cut=True))
    found = auditor.finish(decode=spell)
    assert found.dropped_by_reason == {
        Reason.IDENTICAL_AFTER_CUT: 1, Reason.PROMPT_TOO_LONG: 1, Reason.UNREADABLE: 1,
    }  # fmt: skip
    assert (found.n_rows, found.n_kept, found.dropped_share) == (5, 2, 0.6)
    assert found.lengths["tokens"]["prompt"].mean == 4.0
    assert found.bias["tokens"].chosen_longer == 1.0
    assert found.cut_shares == {"chosen": 0.5, "rejected": 0.0}
    assert found.sample is not None
    assert found.sample.to_json() == {
        "id": "p:0", "prompt": "0 1 2", "chosen": "7 8 1", "rejected": "9 1", "mask_spans": [[3, 6], [6, 8]],
    }  # fmt: skip


def test_the_sample_is_a_row_that_was_kept() -> None:
    auditor = Auditor()
    for one in (pair(1, "yes", "no", "Why?"), pair(2), pair(3, "no", "yes", "Why?")):
        if auditor.see(one):
            auditor.see_tokens(tokens(one))
    sample = auditor.finish(decode=spell).sample
    assert sample is not None
    assert sample.id == "p:2", "row 1 was contradicted by row 3"


def test_overlap_with_evaluation_prompts() -> None:
    evaluation = {normalise_prompt("  What is\nBETA? ")}
    earlier = Pair("p:2", (Message("user", "what is beta?"), Message("assistant", "b"), Message("user", "c")), "y", "n")
    rows = [
        pair(1, prompt="What is  beta?"),
        earlier,
        pair(3),
        pair(4, prompt="what is beta"),
        pair(5, "", "n", "what is beta?"),
    ]
    found = audit(rows, evaluation_prompts=evaluation)
    assert found.overlap == ("p:1", "p:2")
    assert "2 kept rows hold an evaluation prompt (first: p:1)" in found.lines()
    assert audit(rows).overlap is None
    assert audit(rows, evaluation_prompts=set()).overlap == ()


def test_the_json_form_and_the_sentences() -> None:
    rows = [pair(1, "longer", "no"), pair(2), pair(3, ""), RowProblem("p:4", Reason.UNREADABLE, "no text")]
    found = audit(rows, tokenize=tokens, decode=spell)
    form = json.loads(json.dumps(found.to_json()))
    assert (form["rows"], form["kept"], form["dropped"], form["dropped_share"]) == (4, 2, 2, 0.5)
    assert form["dropped_by_reason"] == {"empty_response": 1, "malformed": 1}
    assert form["lengths"]["characters"]["chosen"] == {"median": 4.5, "mean": 4.5, "p95": 5.85, "maximum": 6}
    assert form["length_bias"]["tokens"]["auc"] == 1.0
    assert form["cut"] == {"chosen": 0.0, "rejected": 0.0}
    assert form["overlap_with_evaluation"] is None
    assert form["sample"]["mask_spans"] == [[3, 6], [6, 8]]
    assert found.lines() == [
        "4 rows: 2 kept, 2 dropped (50.0%)",
        "  1 empty_response: a response is empty or only white space (first: p:3, 'chosen' is empty)",
        "  1 malformed: could not be read (first: p:4, no text)",
        "characters, median (95th percentile): prompt 6 (6), chosen 4 (6), rejected 2 (2)",
        "tokens, median (95th percentile): prompt 3 (3), chosen 3 (3), rejected 2 (2)",
        "length bias in characters: chosen longer in 100.0% of pairs, equal in 0.0%, Cohen's d +1.67, "
        "AUC of length alone 1.000",
        "length bias in tokens: chosen longer in 100.0% of pairs, equal in 0.0%, AUC of length alone 1.000",
        "cut at the limit: 0.0% of chosen, 0.0% of rejected",
    ]
    assert len(found.dropped_rows) == len([row.to_json() for row in found.dropped_rows]) == 2


def test_nothing_kept_and_nothing_seen_are_no_errors() -> None:
    nothing = audit([])
    assert (nothing.n_rows, nothing.n_kept, nothing.dropped_share, nothing.lines()) == (
        0, 0, 0.0, ["0 rows: 0 kept, 0 dropped (0.0%)"],
    )  # fmt: skip
    all_bad = audit([pair(1, "")], tokenize=tokens)
    assert (all_bad.n_kept, all_bad.lengths, all_bad.bias, all_bad.cut_shares, all_bad.sample) == (0, {}, {}, {}, None)
    json.dumps(all_bad.to_json())


def test_an_id_names_one_row() -> None:
    with pytest.raises(DataError, match="two rows have the id 'p:1'"):
        audit([pair(1), pair(1, "other")])


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("ab "), st.sampled_from(["x", "y", "x ", ""]), st.sampled_from(["x", "y", "z"])),
        max_size=25,
    )
)
def test_every_row_is_accounted_for(rows: list[tuple[str, str, str]]) -> None:
    pairs = [pair(number, chosen, rejected, prompt) for number, (prompt, chosen, rejected) in enumerate(rows)]
    found = audit(pairs)
    assert found.n_rows == len(rows)
    assert found.n_kept + len(found.dropped_rows) == len(rows)
    assert len(found.dropped_ids) == len(found.dropped_rows), "no row is dropped twice"
    assert sum(found.dropped_by_reason.values()) == len(found.dropped_rows)
    kept = [one for one in pairs if one.id not in found.dropped_ids]
    seen = {(one.prompt, frozenset((one.chosen.strip(), one.rejected.strip()))) for one in kept}
    assert len(seen) == len(kept), "what is kept neither repeats nor contradicts itself"


# ---- text that a template has rendered already -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chosen", "mark"),
    [
        ("<|im_start|>user", "<|im_start|>"),
        ("<s>[INST] Why? [/INST]", "<s>"),
        ("Why? [/INST] yes", "[/INST]"),
        ("yes</s>\n", "</s>"),
        ("yes<|eot_id|>", "<|eot_id|>"),
        ("yes<end_of_turn>", "<end_of_turn>"),
        ("<｜User｜>Why?", "<｜User｜>"),
        ("[TOOL_CALLS] []", "[TOOL_CALLS]"),
        ("### Instruction:\nWhy?\n\n### Response:\n", "### Response:"),
        ("A chat. USER: Why? ASSISTANT:", "ASSISTANT:"),
        ("### Response: is what Alpaca writes, ASSISTANT: Vicuna", None),
        ("<s>old</s> <b>new</b>", None),
        ("a <| b |> c, x <b>y</b> [INSTALL] <|>", None),
    ],
)
def test_rows_with_marks_of_a_chat_template_are_counted(chosen: str, mark: str | None) -> None:
    """trl#1115, alignment-handbook#171: text that holds Llama 2's template, for a ChatML model: a template inside a
    template, and a literal </s> is learned. HTML and operators of programming languages are no marks."""
    found = audit([pair(1), pair(2, chosen=chosen), pair(3, chosen=chosen, rejected=chosen)])
    assert found.template_marks == (() if mark is None else (("p:2", mark),)), "the third is dropped"
    line = f"1 kept rows hold marks of another chat template (first: p:2, {mark!r})"
    assert any(text.startswith(line) for text in found.lines()) is (mark is not None)
    assert found.to_json()["template_marks"]["rows"] == (mark is not None)


def test_notes_stand_behind_the_counts() -> None:
    found = audit([pair(1)], notes=lambda: ["columns not read: a"])
    assert found.lines()[-1] == "columns not read: a"
    assert found.to_json()["notes"] == ["columns not read: a"]
