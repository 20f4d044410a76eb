"""Tools, calls and results: read from every form, written by the template, never lost without a word."""

from __future__ import annotations

import json
from typing import Any

import chat_families
import pytest
import tool_templates

from trimtab.data.audit import audit
from trimtab.data.chat import ChatTemplate
from trimtab.data.formats import detect_format
from trimtab.data.problems import Reason, RowProblem
from trimtab.records import Message, Pair, TokenPair

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
LIMITS = {"max_prompt_tokens": 600, "max_response_tokens": 300}


def call(city: str, **more: str) -> dict[str, Any]:
    return {"type": "function", **more, "function": {"name": "get_weather", "arguments": {"city": city}}}


def asks(content: str | None = "", *calls: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


QUESTION = {"role": "user", "content": "Is it cold in Oslo?"}
ROW = {
    "prompt": [QUESTION],
    "chosen": [asks("", call("Oslo"))],
    "rejected": [asks("", call("Rome"))],
    "tools": [WEATHER],
}
AFTER = {
    "prompt": [
        QUESTION,
        asks(None, call("Oslo", id="abcdefghi")),
        {"role": "tool", "content": 'It is "cold",\nno sun.'},
    ],
    "chosen": [{"role": "assistant", "content": "Yes."}],
    "rejected": [{"role": "assistant", "content": "No."}],
    "tools": [WEATHER],
}


def read(row: dict[str, Any]) -> Pair | RowProblem:
    return detect_format([row], source="x").to_record("row 1", row)


def ids(row: dict[str, Any], template: ChatTemplate) -> TokenPair | RowProblem:
    pair = read(row)
    assert isinstance(pair, Pair), pair
    return template.tokenize_pair(pair, **LIMITS)


def texts(row: dict[str, Any], template: ChatTemplate) -> tuple[str, str, str]:
    tokens = ids(row, template)
    assert isinstance(tokens, TokenPair), tokens
    return tuple(template.decode(part) for part in (tokens.prompt_ids, tokens.chosen_ids, tokens.rejected_ids))  # type: ignore[return-value]


def problem(outcome: object) -> tuple[Reason, str]:
    assert isinstance(outcome, RowProblem), outcome
    return outcome.reason, outcome.detail


QWEN3 = ChatTemplate.of(chat_families.chatml(tool_templates.QWEN3))
LLAMA32 = ChatTemplate.of(chat_families.llama3(tool_templates.LLAMA32))
SMOLLM3 = ChatTemplate.of(chat_families.chatml(tool_templates.SMOLLM3))


def mistral() -> ChatTemplate:
    tokenizer = chat_families.mistral()
    tokenizer.chat_template = tool_templates.MISTRAL
    return ChatTemplate.of(tokenizer)


# ---- families --------------------------------------------------------------------------------------------------------


def test_qwen3_writes_the_schema_into_the_prompt_and_the_call_into_the_response() -> None:
    prompt, chosen, rejected = texts(ROW, QWEN3)
    assert prompt == (
        "<|im_start|>system\nTools:\n<tools>\n"
        '{"type": "function", "function": {"name": "get_weather", "description": "Weather of a city.", "parameters": '
        '{"type": "object", "properties": {"city": {"type": "string"}}}}}\n</tools><|im_end|>\n'
        "<|im_start|>user\nIs it cold in Oslo?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
    assert chosen == '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call><|im_end|>'
    assert rejected == chosen.replace("Oslo", "Rome")


def test_qwen3_after_the_tool_has_answered() -> None:
    prompt, chosen, rejected = texts(AFTER, QWEN3)
    assert '<|im_start|>user\n<tool_response>\nIt is "cold",\nno sun.\n</tool_response><|im_end|>\n' in prompt
    assert '<|im_start|>assistant\n<tool_call>\n{"name": "get_weather"' in prompt
    assert (chosen, rejected) == ("Yes.<|im_end|>", "No.<|im_end|>")


def test_text_and_a_call() -> None:
    row = {**ROW, "chosen": [asks("I look.", call("Oslo"), call("Bergen"))]}
    _, chosen, _ = texts(row, QWEN3)
    assert chosen.startswith("I look.\n<tool_call>\n")
    assert chosen.count("</tool_call>") == 2


def test_llama_writes_a_result_as_json_and_refuses_two_calls() -> None:
    prompt, *_ = texts(AFTER, LLAMA32)
    assert '<|start_header_id|>ipython<|end_header_id|>\n\n"It is \\"cold\\",\\nno sun."<|eot_id|>' in prompt
    _, chosen, _ = texts(ROW, LLAMA32)
    assert chosen == '{"name": "get_weather", "parameters": {"city": "Oslo"}}<|eot_id|>'
    two = {**ROW, "chosen": [asks("", call("Oslo"), call("Bergen"))]}
    assert problem(ids(two, LLAMA32)) == (Reason.TEMPLATE_REFUSED, "one call a turn")
    # it writes a call alone: the text beside it would be lost
    reason, detail = problem(ids({**ROW, "chosen": [asks("I look.", call("Oslo"))]}, LLAMA32))
    assert (reason, "leaves out or changes a part of the response" in detail) == (Reason.TEXT_LOST, True)


def test_mistral_asks_for_ids_of_calls() -> None:
    template = mistral()
    prompt, chosen, _ = texts(AFTER, template)
    assert '[AVAILABLE_TOOLS] [{"type": "function"' in prompt
    assert '"id": "abcdefghi"}]</s> [TOOL_RESULTS] {"content": "It is \\"cold\\",\\nno sun."}[/TOOL_RESULTS]' in prompt
    assert chosen.strip() == "Yes.</s>"
    assert problem(ids(ROW, template)) == (Reason.TEMPLATE_REFUSED, "a call has an id of nine characters")


def test_smollm3_takes_its_tools_from_the_rows_own_arguments() -> None:
    plain = {"prompt": [QUESTION], "chosen": [{"role": "assistant", "content": "Yes."}], "rejected": "No."}
    plain["rejected"] = [{"role": "assistant", "content": "No."}]
    assert problem(ids({**plain, "tools": [WEATHER]}, SMOLLM3)) == (
        Reason.TEXT_LOST,
        "the template leaves out the tool 'get_weather'",
    )
    own = {**plain, "chat_template_kwargs": {"xml_tools": ["<get_weather/>"], "enable_thinking": True}}
    prompt, chosen, _ = texts(own, SMOLLM3)
    assert prompt.startswith("<|im_start|>system\nReasoning: /think\n<get_weather/>\n")
    assert prompt.endswith("<|im_start|>assistant\n")
    assert texts(plain, SMOLLM3)[0].endswith("/no_think\n<|im_end|>\n<|im_start|>user\nIs it cold in Oslo?<|im_end|>\n"
                                             "<|im_start|>assistant\n<think>\n\n</think>\n")  # fmt: skip
    assert chosen == "Yes.<|im_end|>"


# ---- nothing is lost without a word ----------------------------------------------------------------------------------


def test_a_template_that_knows_no_tools() -> None:
    template = ChatTemplate.of(chat_families.chatml())
    assert problem(ids(ROW, template)) == (Reason.TEXT_LOST, "the template leaves out the tool 'get_weather'")
    without = {key: value for key, value in ROW.items() if key != "tools"}
    assert problem(ids(without, template)) == (
        Reason.TEXT_LOST,
        "the template leaves out 'get_weather' of the tool_calls of the response",
    )
    after = {key: value for key, value in AFTER.items() if key != "tools"}
    reason, detail = problem(ids(after, template))
    assert (reason, "of the tool_calls of a message of the assistant" in detail) == (Reason.TEXT_LOST, True)


def test_without_a_template_nothing_writes_a_call() -> None:
    assert problem(ids(ROW, ChatTemplate.of(chat_families.bare()))) == (
        Reason.TEMPLATE_REFUSED,
        "without a chat template nothing writes tools and calls",
    )


def test_reasoning_is_written_or_refused() -> None:
    row = {
        "prompt": [QUESTION],
        "chosen": [{"role": "assistant", "reasoning_content": "North is cold.", "content": "Yes."}],
        "rejected": [{"role": "assistant", "content": "No."}],
    }
    prompt, chosen, rejected = texts(row, QWEN3)
    assert prompt.endswith("<|im_start|>assistant\n")  # reasoning is on for this row
    assert chosen == "<think>\nNorth is cold.\n</think>\n\nYes.<|im_end|>"
    assert rejected == "<think>\n\n</think>\n\nNo.<|im_end|>"
    off = {**row, "chat_template_kwargs": {"enable_thinking": False}}
    assert problem(ids(off, QWEN3))[0] is Reason.TEMPLATE_REFUSED
    assert problem(ids(row, LLAMA32)) == (
        Reason.TEXT_LOST,
        "the template leaves out the reasoning_content of the response",
    )


def test_a_control_token_in_a_call_or_a_schema_is_refused() -> None:
    for row in (
        {**ROW, "chosen": [asks("", call("Oslo<|im_end|>"))]},
        {**ROW, "tools": [{"name": "f", "description": "<|im_start|>"}]},
    ):
        assert problem(ids(row, QWEN3))[0] is Reason.CONTROL_TOKEN


# ---- forms -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "chosen",
    [
        asks(None, call("Oslo")),
        {"role": "assistant", "tool_calls": [call("Oslo")]},
        {"role": "assistant", "content": "", "tool_calls": json.dumps([call("Oslo")])},
        {"role": "assistant", "content": "", "function_call": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}},
        {"role": "assistant", "content": "", "tool_calls": [{"name": "get_weather", "arguments": {"city": "Oslo"}}]},
        # a column of records has every key in every row
        {"role": "assistant", "content": "", "tool_calls": [call("Oslo") | {"id": None}], "name": None},
        {"from": "function_call", "value": '{"name": "get_weather", "arguments": {"city": "Oslo"}}'},
    ],
)
def test_forms_of_a_call(chosen: dict[str, Any]) -> None:
    assert texts({**ROW, "chosen": [chosen]}, QWEN3)[1] == texts(ROW, QWEN3)[1]


@pytest.mark.parametrize(
    "tools",
    [
        [WEATHER["function"]],
        json.dumps([WEATHER]),
        [{**WEATHER, "strict": None}],
        WEATHER,
    ],
)
def test_forms_of_a_tool(tools: object) -> None:
    assert texts({**ROW, "tools": tools}, QWEN3)[0] == texts(ROW, QWEN3)[0]
    row = {key: value for key, value in ROW.items() if key != "tools"}
    assert texts({**row, "functions": tools}, QWEN3)[0] == texts(ROW, QWEN3)[0]


@pytest.mark.parametrize("role", ["tool", "ipython", "function", "observation"])
def test_forms_of_a_result(role: str) -> None:
    *before, result = AFTER["prompt"]
    assert texts({**AFTER, "prompt": [*before, {**result, "role": role}]}, QWEN3) == texts(AFTER, QWEN3)


def test_a_developer_is_a_system() -> None:
    row = {**AFTER, "prompt": [{"role": "developer", "content": "Be brief."}, *AFTER["prompt"]]}
    assert texts(row, QWEN3)[0].startswith("<|im_start|>system\nBe brief.\n\nTools:\n")


@pytest.mark.parametrize(
    ("change", "reason", "detail"),
    [
        ({"tools": [{"description": "x"}]}, Reason.UNREADABLE, "tool 1 of 'tools' has no name"),
        ({"tools": "weather"}, Reason.UNREADABLE, "'tools' is text that is not JSON"),
        ({"chat_template_kwargs": [1]}, Reason.UNREADABLE, "'chat_template_kwargs' is no object"),
        (
            {"chosen": [asks("", {"function": {"description": "x"}})]},
            Reason.UNREADABLE,
            "a call in message 1 of 'chosen' has no name",
        ),
        (
            {"chosen": [asks("", {"name": "f", "arguments": "{city"})]},
            Reason.UNREADABLE,
            "the arguments of 'f' in message 1 of 'chosen' is text that is not JSON",
        ),
        (
            {"prompt": [{**QUESTION, "tool_calls": [call("Oslo")]}]},
            Reason.WRONG_ROLES,
            "message 1 of 'prompt' calls a tool and is from the user",
        ),
    ],
)
def test_what_cannot_be_read_is_named(change: dict[str, Any], reason: Reason, detail: str) -> None:
    found, said = problem(read({**ROW, **change}))
    assert (found, detail in said) == (reason, True), said


@pytest.mark.parametrize(
    ("prompt", "detail"),
    [
        ([QUESTION, asks("", call("Oslo")), QUESTION], "message 3 is from the user, not the tool whose result"),
        ([QUESTION, asks("", call("Oslo"))], "the prompt ends with the assistant, not the user or a tool"),
        ([QUESTION, {"role": "tool", "content": "3"}], "message 2 is from the tool, not the assistant"),
        ([*AFTER["prompt"], QUESTION], "message 4 is from the user, not the tool or the assistant"),
    ],
)
def test_a_call_stands_before_its_result(prompt: list[dict[str, Any]], detail: str) -> None:
    row = {**AFTER, "prompt": prompt}
    (dropped,) = audit([read(row)]).dropped_rows
    assert (dropped.reason, detail in dropped.detail) == (Reason.WRONG_ROLES, True), dropped.detail


def test_calls_count_in_what_is_the_same() -> None:
    same = {**ROW, "rejected": ROW["chosen"]}
    other_tools = {**ROW, "tools": [WEATHER, {"name": "get_time"}]}
    shape = detect_format([ROW], source="x")
    pairs = [shape.to_record(str(number), row) for number, row in enumerate((ROW, ROW, same, other_tools))]
    found = audit(pairs)
    assert [(row.id, row.reason) for row in found.dropped_rows] == [("1", Reason.DUPLICATE), ("2", Reason.IDENTICAL)]


def test_a_pair_with_calls_comes_back_from_its_json() -> None:
    for row in (ROW, AFTER):
        pair = read(row)
        assert isinstance(pair, Pair)
        assert Pair.from_json(json.loads(json.dumps(pair.to_json()))) == pair
    assert Message.from_json({"role": "tool", "content": "3", "name": "f"}) == Message("tool", "3", '{"name":"f"}')
