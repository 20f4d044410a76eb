"""A response of several messages: the assistant's calls, tools' results, its answer; only its own tokens are learnt."""

from __future__ import annotations

from typing import Any

import chat_families
import pytest
import tool_templates

from trimtab.data.chat import ChatTemplate
from trimtab.data.formats import detect_format
from trimtab.data.problems import Reason, RowProblem
from trimtab.records import Pair, TokenPair, Unpaired

LLAMA32 = ChatTemplate.of(chat_families.llama3(tool_templates.LLAMA32))
QWEN3 = ChatTemplate.of(chat_families.chatml(tool_templates.QWEN3))
LIMITS = {"max_prompt_tokens": 600, "max_response_tokens": 300}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "w", "parameters": {}}}
QUESTION = {"role": "user", "content": "Is it cold in Oslo?"}


def call(city: str) -> dict[str, Any]:
    function = {"name": "weather", "arguments": {"city": city}}
    return {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}


def result(text: str) -> dict[str, Any]:
    return {"role": "tool", "content": text}


def answer(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


LOOKS = [call("Oslo"), result("3 degrees"), answer("Yes, 3 degrees.")]
ROW = {"prompt": [QUESTION], "chosen": LOOKS, "rejected": [answer("No.")], "tools": [WEATHER]}


def read(row: dict[str, Any]) -> Pair | Unpaired | RowProblem:
    return detect_format([row], source="x").to_record("agents.jsonl:1", row)


def tokens(row: dict[str, Any], template: ChatTemplate = LLAMA32, **limits: int) -> TokenPair | RowProblem:
    pair = read(row)
    assert not isinstance(pair, RowProblem), pair
    return template.tokenize_pair(pair, **(LIMITS | limits))


def test_the_mask_covers_the_assistants_own_tokens() -> None:
    pair = tokens(ROW)
    assert isinstance(pair, TokenPair)
    ids, ((start, end),) = pair.chosen_ids, pair.chosen_foreign
    assert LLAMA32.decode(ids[:start]) == '{"name": "weather", "parameters": {"city": "Oslo"}}<|eot_id|>'
    assert LLAMA32.decode(ids[start:end]) == (
        '<|start_header_id|>ipython<|end_header_id|>\n\n"3 degrees"<|eot_id|>'
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    assert LLAMA32.decode(ids[end:]) == "Yes, 3 degrees.<|eot_id|>"
    assert pair.own_lengths == (len(ids) - (end - start), len(pair.rejected_ids))
    assert (LLAMA32.decode(pair.rejected_ids), pair.rejected_foreign) == ("No.<|eot_id|>", ())
    # what stands there is what the model sees when it gets that far by itself
    later = tokens({**ROW, "prompt": [QUESTION, *LOOKS[:2]], "chosen": LOOKS[2:]})
    assert isinstance(later, TokenPair)
    assert later.prompt_ids == (*pair.prompt_ids, *ids[:end])
    assert later.chosen_ids == ids[end:]


def test_a_cut_response_keeps_the_part_of_its_mask() -> None:
    whole = tokens(ROW)
    assert isinstance(whole, TokenPair)
    ((start, _),) = whole.chosen_foreign
    cut = tokens(ROW, max_response_tokens=start + 2)
    assert isinstance(cut, TokenPair)
    assert (len(cut.chosen_ids), cut.chosen_cut, cut.chosen_foreign) == (start + 2, True, ((start, start + 2),))
    before = tokens(ROW, max_response_tokens=start)
    assert isinstance(before, TokenPair)
    assert before.chosen_foreign == ()


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": [QUESTION, *LOOKS], "rejected": [QUESTION, answer("No.")]},
        {"chosen": [QUESTION, *LOOKS], "rejected": [QUESTION, call("Rome"), result("20 degrees"), answer("No.")]},
    ],
)
def test_whole_conversations_part_where_the_assistant_goes_on(row: dict[str, Any]) -> None:
    pair = read(row | {"tools": [WEATHER]})
    assert isinstance(pair, Pair)
    assert [message.role for message in pair.prompt] == ["user"]
    assert [message.role for message in pair.responses[0].turns] == ["assistant", "tool", "assistant"]
    assert Pair.from_json(pair.to_json()) == pair


def test_demonstrations_of_agents_are_one_response_behind_the_last_question() -> None:
    rows = [
        {"prompt": [QUESTION], "completion": LOOKS, "tools": [WEATHER]},
        {"messages": [QUESTION, *LOOKS], "tools": [WEATHER]},
    ]
    first, second = (tokens(row) for row in rows)
    assert isinstance(first, TokenPair)
    assert isinstance(second, TokenPair)
    assert first.chosen_ids == second.chosen_ids
    assert first.chosen_foreign == second.chosen_foreign != ()


def test_a_single_message_is_as_it_was() -> None:
    pair = read({**ROW, "chosen": [answer("Yes.")]})
    assert isinstance(pair, Pair)
    assert (pair.chosen, pair.chosen_extras) == ("Yes.", "")
    assert pair.responses[0].turns == (pair.responses[0],)


@pytest.mark.parametrize(
    ("chosen", "detail"),
    [
        ([call("Oslo"), answer("Yes."), result("3")], "from the assistant, and the tool call before it has no result"),
        ([result("3"), answer("Yes.")], "message 1 is from the tool, not the assistant"),
        ([call("Oslo"), result("3")], "the response in 'chosen' is from the tool"),
        ([call("Oslo"), result("3"), answer("Yes."), answer("Yes.")], "message 4 is from the assistant, not the user"),
        ([answer("Yes."), answer("No.")], "'chosen' holds 2 messages where one response was expected"),
    ],
)  # fmt: skip
def test_what_is_no_response_names_the_row_and_the_message(chosen: list[dict[str, Any]], detail: str) -> None:
    problem = read({**ROW, "chosen": chosen})
    assert isinstance(problem, RowProblem)
    assert (problem.id, problem.reason) == ("agents.jsonl:1", Reason.WRONG_ROLES)
    assert detail in problem.detail


def test_a_template_that_writes_a_call_otherwise_later_is_refused() -> None:
    problem = tokens(ROW, QWEN3)  # whose header for an answer holds an empty thought that is gone in what follows
    assert isinstance(problem, RowProblem)
    assert problem.reason is Reason.TEMPLATE_REFUSED
    assert "of the response otherwise once others follow" in problem.detail


def test_a_template_without_tools_is_refused() -> None:
    problem = tokens(ROW, ChatTemplate.of(chat_families.chatml()))
    assert isinstance(problem, RowProblem)
    assert problem.reason is Reason.TEXT_LOST
