"""Every published shape of preference data, and what is said about rows and columns that have none of them."""

from __future__ import annotations

from typing import Any

import pytest

from trimtab.data.formats import detect_format
from trimtab.data.problems import Reason, RowProblem
from trimtab.errors import DataError
from trimtab.records import Message, Pair


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def system(text: str) -> dict[str, str]:
    return {"role": "system", "content": text}


def read(row: dict[str, Any], **columns: str) -> Pair | RowProblem:
    return detect_format([row], source="pairs.jsonl", columns=columns or None).to_record("pairs.jsonl:1", row)


def shape(row: dict[str, Any], **columns: str) -> str:
    return detect_format([row], source="pairs.jsonl", columns=columns or None).name


QUESTION = (Message("user", "Why?"),)
SYSTEM = Message("system", "Be brief")
MANY = (Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "Why?"))
HH = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Why?\n\nAssistant:"

SHAPES: dict[str, tuple[str, dict[str, Any], tuple[Message, ...]]] = {
    "TRL explicit, text": ("explicit", {"prompt": "Why?", "chosen": "yes", "rejected": "no"}, QUESTION),
    "TRL explicit, messages": (
        "explicit",
        {"prompt": [system("Be brief"), user("Why?")], "chosen": [assistant("yes")], "rejected": [assistant("no")]},
        (SYSTEM, *QUESTION),
    ),
    "prompt text, one-message responses": (
        "explicit",
        {"prompt": "Why?", "chosen": [assistant("yes")], "rejected": [assistant("no")]},
        QUESTION,
    ),
    "TRL implicit": (
        "conversations",
        {
            "chosen": [user("Hi"), assistant("Hello"), user("Why?"), assistant("yes")],
            "rejected": [user("Hi"), assistant("Hello"), user("Why?"), assistant("no")],
        },
        MANY,
    ),
    "UltraFeedback-binarized as published": (
        "conversations",
        {
            "prompt": "Why?",
            "prompt_id": "f0e3",
            "chosen": [user("Why?"), assistant("yes")],
            "rejected": [user("Why?"), assistant("no")],
            "messages": [user("Why?"), assistant("yes")],
            "score_chosen": 8.5,
            "score_rejected": 4.0,
        },
        QUESTION,
    ),
    "conversations as Arrow columns": (
        "conversations",
        {
            "chosen": {"role": ["user", "assistant"], "content": ["Why?", "yes"]},
            "rejected": {"role": ["user", "assistant"], "content": ["Why?", "no"]},
        },
        QUESTION,
    ),
    "HH-RLHF": ("transcript", {"chosen": f"{HH} yes", "rejected": f"{HH} no"}, MANY),
    "HH-RLHF with the prompt apart": ("transcript", {"prompt": HH, "chosen": " yes", "rejected": " no"}, MANY),
    "ShareGPT, LLaMA-Factory": (
        "sharegpt",
        {
            "conversations": [
                {"from": "system", "value": "Be brief"},
                {"from": "human", "value": "Why?"},
            ],
            "chosen": {"from": "gpt", "value": "yes"},
            "rejected": {"from": "gpt", "value": "no"},
        },
        (SYSTEM, *QUESTION),
    ),
    "LLaMA-Factory, instruction": (
        "instruction",
        {"instruction": "Wh", "input": "y?", "system": "Be brief", "history": [["Hi", "Hello"]]}
        | {"chosen": "yes", "rejected": "no"},
        (SYSTEM, *MANY[:2], Message("user", "Wh\ny?")),
    ),
    "instruction alone": (
        "instruction",
        {"instruction": "Why?", "input": "", "history": [], "system": None, "chosen": "yes", "rejected": "no"},
        QUESTION,
    ),
    "input alone": (  # LlamaFactory#5455's kind: parts that are there, parted by a line feed
        "instruction",
        {"instruction": "", "input": "Why?", "chosen": "yes", "rejected": "no"},
        QUESTION,
    ),
    "tools as JSON text, none of them": (  # transformers PR#45422's kind: nothing is absent
        "explicit",
        {"prompt": [user("Why?") | {"tool_calls": "[]"}], "chosen": "yes", "rejected": "no", "tools": " [] "},
        QUESTION,
    ),
    "role/content and from/value in one schema": (
        "explicit",
        {
            "prompt": [{"role": "user", "content": "Why?", "from": None, "value": None, "tool_calls": []}],
            "chosen": [{"role": None, "content": None, "from": "gpt", "value": "yes"}],
            "rejected": {"role": ["assistant"], "content": ["no"], "tool_calls": None},
        },
        QUESTION,
    ),
    "a system message without content": (
        "explicit",
        {"prompt": [{"role": "system", "content": None}, user("Why?")], "chosen": "yes", "rejected": "no"},
        QUESTION,
    ),
    "Orca": (
        "orca",
        {"system": "Be brief", "question": "Why?", "chosen": "yes", "rejected": "no"},
        (SYSTEM, *QUESTION),
    ),
    "Orca without a system text": (
        "orca",
        {"system": "", "question": "Why?", "chosen": "yes", "rejected": "no"},
        QUESTION,
    ),
    "text parts": (
        "explicit",
        {
            "prompt": [{"role": "user", "content": [{"type": "text", "text": "Wh"}, {"type": "text", "text": "y?"}]}],
            "chosen": "yes",
            "rejected": "no",
        },
        QUESTION,
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_published_shapes(name: str) -> None:
    expected, row, prompt = SHAPES[name]
    pair = read(row)
    assert isinstance(pair, Pair), pair
    assert (shape(row), pair.prompt, pair.chosen, pair.rejected) == (expected, prompt, "yes", "no")
    assert pair.plain == (isinstance(row.get("prompt"), str) and expected == "explicit")


def test_columns_are_mapped_by_hand() -> None:
    row = {"q": "Why?", "good": "yes", "bad": "no", "instructions": "Be brief", "prompt": "not this one"}
    pair = read(row, prompt="q", chosen="good", rejected="bad", system="instructions")
    assert isinstance(pair, Pair)
    assert pair.prompt == (SYSTEM, *QUESTION)
    assert dict(pair.meta) == {"prompt": "not this one"}
    implicit = read(
        {"a": [user("Why?"), assistant("yes")], "b": [user("Why?"), assistant("no")]}, chosen="a", rejected="b"
    )
    assert isinstance(implicit, Pair)
    assert implicit.prompt == QUESTION


def test_scalars_come_along_as_meta() -> None:
    row = {"prompt": "Why?", "chosen": "yes", "rejected": "no", "score": 0.5, "long": "x" * 500, "list": [1]}
    pair = read({**row, "meta": {"topic": "bottles", "n": 3}})
    assert isinstance(pair, Pair)
    assert pair.meta == (("n", "3"), ("score", "0.5"), ("topic", "bottles"))


def test_a_shared_prompt_is_found_by_messages_never_by_characters() -> None:
    """Both answers begin with the same words; the prompt must not grow into them."""
    row = {"chosen": [user("Why?"), assistant("Yes, it is")], "rejected": [user("Why?"), assistant("Yes, it was")]}
    pair = read(row)
    assert isinstance(pair, Pair)
    assert (pair.prompt, pair.chosen, pair.rejected) == (QUESTION, "Yes, it is", "Yes, it was")
    same = read({"chosen": row["chosen"], "rejected": row["chosen"]})
    assert isinstance(same, Pair), "identical conversations keep their last message as the response"
    assert (same.prompt, same.chosen) == (QUESTION, "Yes, it is")


ROWS: dict[str, tuple[dict[str, Any], dict[str, Any], Reason, str]] = {
    "missing column": (
        SHAPES["TRL explicit, text"][1],
        {"prompt": "Why?", "chosen": "yes"},
        Reason.UNREADABLE,
        "'rejected' holds nothing where text was expected",
    ),
    "number": (
        SHAPES["TRL explicit, text"][1],
        {"prompt": "Why?", "chosen": 3, "rejected": "no"},
        Reason.UNREADABLE,
        "'chosen' holds a number where messages were expected",
    ),
    "half a surrogate pair": (
        SHAPES["TRL explicit, text"][1],
        {"prompt": "Why?", "chosen": "ab\ud83d", "rejected": "no"},
        Reason.UNREADABLE,
        "'chosen' holds half of a surrogate pair at character 3",
    ),
    "unknown speaker": (
        SHAPES["TRL explicit, messages"][1],
        {"prompt": [user("Why?"), {"role": "narrator", "content": "3"}], "chosen": "yes", "rejected": "no"},
        Reason.WRONG_ROLES,
        "message 2 of 'prompt' is from 'narrator'",
    ),
    "image": (
        SHAPES["TRL explicit, messages"][1],
        {"prompt": [{"role": "user", "content": [{"type": "image"}]}], "chosen": "yes", "rejected": "no"},
        Reason.NOT_READ,
        "message 1 of 'prompt' holds a part of type 'image'",
    ),
    "response from the user": (
        SHAPES["ShareGPT, LLaMA-Factory"][1],
        {**SHAPES["ShareGPT, LLaMA-Factory"][1], "chosen": {"from": "human", "value": "yes"}},
        Reason.WRONG_ROLES,
        "the response in 'chosen' is from the user",
    ),
    "two responses": (
        SHAPES["ShareGPT, LLaMA-Factory"][1],
        {**SHAPES["ShareGPT, LLaMA-Factory"][1], "chosen": [assistant("yes"), assistant("yes")]},
        Reason.WRONG_ROLES,
        "'chosen' holds 2 messages",
    ),
    "conversations that part early": (
        SHAPES["TRL implicit"][1],
        {"chosen": [user("Why?"), assistant("yes")], "rejected": [user("Who?"), assistant("no")]},
        Reason.PROMPT_MISMATCH,
        "message 1 differs",
    ),
    "conversations of unequal length": (
        SHAPES["TRL implicit"][1],
        {"chosen": [user("Why?"), assistant("yes")], "rejected": [*SHAPES["TRL implicit"][1]["rejected"]]},
        Reason.PROMPT_MISMATCH,
        "messages before the response: 1 in 'chosen', 3 in 'rejected'",
    ),
    "conversation that ends with the user": (
        SHAPES["TRL implicit"][1],
        {"chosen": [user("Why?"), user("yes")], "rejected": [user("Why?"), assistant("no")]},
        Reason.WRONG_ROLES,
        "the response in 'chosen' is from the user",
    ),
    "transcripts with two prompts": (
        SHAPES["HH-RLHF"][1],
        {"chosen": f"{HH} yes", "rejected": "\n\nHuman: Who?\n\nAssistant: no"},
        Reason.PROMPT_MISMATCH,
        "messages before the response: 3 in 'chosen', 1 in 'rejected'",
    ),
    "transcript that ends with the human": (
        SHAPES["HH-RLHF"][1],
        {"chosen": f"{HH} yes\n\nHuman: and?", "rejected": f"{HH} no"},
        Reason.WRONG_ROLES,
        "the transcript in 'chosen' ends with the human",
    ),
    "message without content": (
        SHAPES["TRL explicit, messages"][1],
        {"prompt": [{"role": "user", "content": None}], "chosen": "yes", "rejected": "no"},
        Reason.UNREADABLE,
        "message 1 of 'prompt' has no content",
    ),
    "nothing but an empty system message": (
        SHAPES["TRL explicit, messages"][1],
        {"prompt": [{"role": "system", "content": None}], "chosen": "yes", "rejected": "no"},
        Reason.UNREADABLE,
        "'prompt' holds a system message without content alone",
    ),
    "two system messages": (
        SHAPES["ShareGPT, LLaMA-Factory"][1],
        {**SHAPES["ShareGPT, LLaMA-Factory"][1], "system": "Rhyme"},
        Reason.NOT_READ,
        "'system' and the conversation's own system message differ",
    ),
    "a history that is none": (
        SHAPES["instruction alone"][1],
        {**SHAPES["instruction alone"][1], "history": ["Hi", "Hello"]},
        Reason.UNREADABLE,
        "'history' holds something else than pairs",
    ),
    "a history beside a prompt": (
        SHAPES["TRL explicit, text"][1],
        {**SHAPES["TRL explicit, text"][1], "history": [["Hi", "Hello"]]},
        Reason.NOT_READ,
        "the column 'history' is filled",
    ),
    "messages as text": (
        SHAPES["TRL explicit, text"][1],
        {"prompt": "Why?", "chosen": '{"role": "assistant", "content": "yes"}', "rejected": "no"},
        Reason.UNREADABLE,
        "'chosen' holds messages written as text",
    ),
    "no transcript": (
        SHAPES["HH-RLHF"][1],
        {"chosen": "yes", "rejected": "no"},
        Reason.UNREADABLE,
        "'chosen' does not open with",
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_bad_row_is_a_value_with_its_reason(name: str) -> None:
    good, bad, reason, detail = ROWS[name]
    outcome = detect_format([good], source="pairs.jsonl").to_record("pairs.jsonl:17", bad)
    assert isinstance(outcome, RowProblem), outcome
    assert (outcome.id, outcome.reason) == ("pairs.jsonl:17", reason)
    assert detail in outcome.detail


COLUMNS: dict[str, tuple[dict[str, Any], dict[str, str], str, str]] = {
    "no pair": (
        {"instruction": "Why?", "score": 3},
        {},
        "columns found: instruction, score",
        "--columns prompt=",
    ),
    "one side": (
        {"prompt": "Why?", "chosen": "yes"},
        {},
        "column 'rejected' is missing; columns found: prompt",
        "--columns prompt=",
    ),
    "empty side": (
        {"prompt": "Why?", "chosen": "yes", "rejected": None},
        {},
        "column 'rejected' is empty in the first rows",
        "--columns prompt=",
    ),
    "no prompt": ({"chosen": "yes", "rejected": "no"}, {}, "no column holds the prompt", "--columns prompt="),
    "another name": (
        {"input": "Why?", "chosen": "yes", "rejected": "no"},
        {},
        "columns found: input",
        "--columns prompt=",
    ),
    "messages as numpy writes them": (
        {"prompt": "[{'content': 'Hi', 'role': 'user'}\n {'content': 'Yo', 'role': 'assistant'}]"}
        | {"chosen": "yes", "rejected": "no"},
        {},
        "'prompt' holds a conversation written as text",
        "JSON lines",
    ),
    "unlike sides": (
        {"prompt": "Why?", "chosen": "yes", "rejected": [assistant("no")]},
        {},
        "'chosen' holds text and 'rejected' a list of messages",
        "--columns",
    ),
    "numbers": (
        {"prompt": "Why?", "chosen": 1, "rejected": 2},
        {},
        "'chosen' holds neither text nor messages",
        "--columns",
    ),
    "messages as text": (
        {"prompt": "Why?", "chosen": '[{"role": "assistant", "content": "yes"}]', "rejected": "no"},
        {},
        "a conversation written as text",
        "JSON lines",
    ),
    "a prompt of messages as text": (
        {"prompt": "[{'content': 'Why?', 'role': 'user'}]", "chosen": "yes", "rejected": "no"},
        {},
        "'prompt' holds a conversation written as text",
        "JSON lines",
    ),
    "one message as text": (
        {"prompt": "Why?", "chosen": "yes", "rejected": '{"role": "assistant", "content": "no"}'},
        {},
        "'rejected' holds a conversation written as text",
        "JSON lines",
    ),
    "ShareGPT turns as text": (
        {"conversations": '[{"from": "human", "value": "Why?"}]', "chosen": "yes", "rejected": "no"},
        {},
        "'conversations' holds a conversation written as text",
        "JSON lines",
    ),
    "unknown role": ({"a": 1}, {"promt": "a"}, "'promt' is none of the parts of a pair", "--columns prompt="),
    "half a mapping": ({"a": 1}, {"prompt": "a"}, "both chosen and rejected", "--columns prompt="),
    "misspelt column": (
        {"question": "Why?", "good": "yes", "bad": "no"},
        {"prompt": "qestion", "chosen": "good", "rejected": "bad"},
        "no column 'qestion'; columns found: question, good, bad",
        "did you mean prompt=question?",
    ),
    "one column twice": (
        {"question": "Why?", "good": "yes", "bad": "no"},
        {"prompt": "question", "chosen": "good", "rejected": "good"},
        "one column cannot stand for two",
        "--columns",
    ),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_columns_that_make_no_pairs_are_named(name: str) -> None:
    row, columns, message, remedy = COLUMNS[name]
    with pytest.raises(DataError) as caught:
        read(row, **columns)
    assert message in caught.value.message
    assert remedy in caught.value.remedy


def test_the_accepted_shapes_are_listed() -> None:
    with pytest.raises(DataError) as caught:
        read({"a": 1})
    assert all(word in caught.value.message for word in ("HH-RLHF", "ShareGPT", "Orca", "role, content"))


def test_the_shape_is_told_from_the_first_row_that_has_both_sides() -> None:
    rows = [{"prompt": "a", "chosen": None, "rejected": None}, {"prompt": "Why?", "chosen": "yes", "rejected": "no"}]
    found = detect_format(rows, source="pairs.jsonl")
    assert isinstance(found.to_record("x", rows[0]), RowProblem)
    assert isinstance(found.to_record("x", rows[1]), Pair)


@pytest.mark.parametrize(
    "text",
    [
        '{"model": "gpt", "messages": [{"role": "user", "content": "Hi"}]}',
        '[{"id": 1}, {"id": 2}]',
        '{"role": "admin"}',
        "{'name': 'x', 'role': 'y'}",
        "[1, 2]",
        "{broken}",
    ],
)
def test_answers_that_are_json_are_answers(text: str) -> None:
    pair = read({"prompt": "Write JSON", "chosen": text, "rejected": "no"})
    assert isinstance(pair, Pair)
    assert pair.chosen == text


# ---- what is not read is said or refused -----------------------------------------------------------------------------

CALL = [{"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Oslo"}}}]
QUESTION_AND_NO = {"prompt": [user("Why?")], "rejected": [assistant("no")]}


@pytest.mark.parametrize(
    "part",
    ["reasoning_details", "thinking", "tools", "images", "audio"],
)
@pytest.mark.parametrize("content", [{"content": "yes"}, {"content": ""}, {"content": None}, {}])
def test_a_message_with_a_part_that_is_not_read_is_refused_by_its_name(part: str, content: dict[str, Any]) -> None:
    """axolotl#3824, trl PR#6259, PR#4923: without its call the answer is bare text, empty, or the same as the other."""
    row = {**QUESTION_AND_NO, "chosen": [{"role": "assistant", part: CALL, **content}]}
    outcome = read(row)
    assert isinstance(outcome, RowProblem)
    assert (outcome.reason, outcome.detail) == (Reason.NOT_READ, f"message 1 of 'chosen' has '{part}'")


@pytest.mark.parametrize("column", ["documents", "images", "videos", "audio"])
def test_a_filled_column_that_changes_the_prompt_is_refused_unless_left_out_by_hand(column: str) -> None:
    """ms-swift#7314, axolotl#3824: the prompt speaks of what the model never sees."""
    row = {**SHAPES["TRL explicit, text"][1], column: [{"path": "cat.png", "bytes": None}]}
    outcome = read(row)
    assert isinstance(outcome, RowProblem)
    assert (outcome.reason, f"'{column}' is filled" in outcome.detail) == (Reason.NOT_READ, True)
    by_hand = detect_format([row], source="x", columns={"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"})
    assert isinstance(by_hand.to_record("x", row), Pair)
    assert by_hand.notes == [f"columns not read: {column}"]
    for empty in (None, [], "", [{"path": None, "bytes": None}]):
        assert isinstance(read({**row, column: empty}), Pair), "null and nothing but null count as absent"


def test_what_was_not_read_is_named_once_all_rows_were_read() -> None:
    rows: list[dict[str, Any]] = [
        {**SHAPES["TRL explicit, text"][1], "score": 0, "messages": [user("Why?")], "empty": None},
        {"prompt": [{**user("Why?"), "weight": 1, "name": None}], "chosen": "yes", "rejected": "no", "id": "a"},
    ]
    found = detect_format(rows, source="x")
    assert found.notes == []
    assert all(isinstance(found.to_record("x", row), Pair) for row in rows)
    assert found.notes == ["columns not read: score, messages, id, prompt.weight"]


# ---- one faulty row decides for none but itself ----------------------------------------------------------------------

GOOD = SHAPES["TRL explicit, messages"][1]
LONG = SHAPES["TRL implicit"][1]
FIRST_ROWS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "null content": ({**GOOD, "chosen": [{"role": "assistant", "content": None}]}, GOOD),
    "an empty list": ({**GOOD, "chosen": []}, GOOD),
    "text beside a list": ({**GOOD, "prompt": None, "chosen": "yes"}, GOOD),
    "a number": ({**GOOD, "rejected": 3}, GOOD),
    "a conversation among responses": (LONG, GOOD),
    "messages as text": ({**GOOD, "prompt": '[{"role": "user", "content": "Why?"}]'}, GOOD),
    "role tool": ({**LONG, "chosen": [user("Hi"), {"role": "tool", "content": "3"}, assistant("yes")]}, LONG),
    "role developer": ({**LONG, "chosen": [{"role": "developer", "content": "x"}, *LONG["chosen"]]}, LONG),
    "no content key": ({**LONG, "chosen": [user("Hi"), {"role": "assistant"}]}, LONG),
    "a text among conversations": ({**LONG, "chosen": "yes", "rejected": "no"}, LONG),
    "a part in a list": ({**LONG, "chosen": ["yes"], "rejected": ["no"]}, LONG),
}


@pytest.mark.parametrize("name", FIRST_ROWS)
def test_a_faulty_first_row_is_one_faulty_row(name: str) -> None:
    """transformers PR#45422, axolotl#3217: the first row was the sample, and its fault the file's."""
    bad, good = FIRST_ROWS[name]
    found = detect_format([bad, good, good], source="pairs.jsonl")
    assert isinstance(found.to_record("x:1", bad), RowProblem)
    assert isinstance(found.to_record("x:2", good), Pair)
    assert isinstance(detect_format([good, good, bad], source="x").to_record("x:3", bad), RowProblem)
