"""Files after public reports of faults in other trainers: each gives the value that its README calls right."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import chat_families
import pytest
import tool_templates

from trimtab.data.audit import audit
from trimtab.data.audit_result import Audit
from trimtab.data.chat import ChatTemplate
from trimtab.data.formats import Format, detect_format
from trimtab.data.problems import Reason, RowProblem
from trimtab.data.sources import read_rows
from trimtab.errors import DataError
from trimtab.records import Pair, TokenPair

pytestmark = pytest.mark.needs_shared

# folder: (rows, kept, reasons of the dropped, words that must stand in the audit)
CASES: dict[str, tuple[int, int, dict[str, int], str]] = {
    "C01-tool-calls-text": (14, 14, {}, ""),
    "C01b-tool-calls-only": (14, 14, {}, ""),
    "C01c-tool-calls-differ": (14, 14, {}, ""),
    "C01e-tool-call-no-content": (14, 14, {}, ""),
    "C02-reasoning-content": (14, 14, {}, ""),
    "C11-alpaca-input": (14, 14, {}, ""),
    "C12-images": (14, 0, {"not_read": 14}, "the column 'images' is filled"),
    "C13-human-assistant": (14, 14, {}, ""),
    "C14-different-turns": (28, 0, {"prompt_mismatch": 28}, "do not answer the same prompt"),
    "C17-null-content": (14, 14, {}, ""),
    "C22-foreign-template": (14, 14, {}, "14 kept rows hold marks of another chat template"),
    "C25-prefill": (14, 0, {"wrong_roles": 14}, "the prompt ends with the assistant"),
    "V6-prompt-and-messages": (10, 10, {}, "columns not read: messages"),
    "V7-mixed-keys": (10, 10, {}, ""),
    "X1-tool-role-first-row": (10, 10, {}, ""),
    "X2-null-content-first-row": (10, 10, {}, ""),
    "X4-empty-first-rows": (10, 9, {"malformed": 1}, "'chosen' holds an empty list"),
}


def formatted(path: Path) -> tuple[Format, list[Pair], Audit]:
    rows = read_rows(str(path))
    shape = detect_format(rows.head, source=rows.source)
    outcomes = [shape.to_record(row_id, row) for row_id, row in rows]
    return shape, [pair for pair in outcomes if isinstance(pair, Pair)], audit(outcomes, notes=lambda: shape.notes)


@pytest.fixture(scope="session")
def cases(shared_data: Path) -> Path:
    return shared_data.parent / "cases" / "data"


@pytest.mark.parametrize("name", CASES)
def test_the_right_value_of_each_case(name: str, cases: Path) -> None:
    n_rows, n_kept, dropped, words = CASES[name]
    [file] = (cases / name).glob("pairs.*")
    _, _, found = formatted(file)
    assert (found.n_rows, found.n_kept) == (n_rows, n_kept)
    assert Counter(row.reason.value for row in found.dropped_rows) == dropped
    assert words in "\n".join(found.lines())


WITH_TOOLS = ChatTemplate.of(chat_families.chatml(tool_templates.QWEN3))


def tokenize(pair: Pair, template: ChatTemplate) -> TokenPair | RowProblem:
    return template.tokenize_pair(pair, max_prompt_tokens=900, max_response_tokens=900)


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("C01")])
def test_calls_are_written_or_refused_by_name(name: str, cases: Path) -> None:
    """axolotl#3824, trl PR#6259: the response holds its call, the prompt the schema; no row becomes bare text."""
    _, pairs, _ = formatted(cases / name / "pairs.jsonl")
    tokens = [tokenize(pair, WITH_TOOLS) for pair in pairs]
    assert all(isinstance(pair, TokenPair) for pair in tokens)
    first = tokens[0]
    assert isinstance(first, TokenPair)
    chosen, prompt = WITH_TOOLS.decode(first.chosen_ids), WITH_TOOLS.decode(first.prompt_ids)
    assert ('"get_weather"' in chosen, '"Oslo"' in chosen, '"parameters"' in prompt) == (True, True, True)
    assert first.chosen_ids != first.rejected_ids
    without_tools = ChatTemplate.of(chat_families.chatml())
    refusals = [tokenize(pair, without_tools) for pair in pairs]
    assert {refusal.detail for refusal in refusals if isinstance(refusal, RowProblem)} == {
        "the template leaves out the tool 'get_weather'"
    }


def test_a_conversation_with_a_tool_is_written_or_refused(cases: Path) -> None:
    """axolotl#3217."""
    _, pairs, _ = formatted(cases / "X1-tool-role-first-row" / "pairs.jsonl")
    written, refused = (tokenize(pairs[0], t) for t in (WITH_TOOLS, ChatTemplate.of(chat_families.chatml())))
    assert isinstance(written, TokenPair)
    assert "<tool_response>\ncold\n</tool_response>" in WITH_TOOLS.decode(written.prompt_ids)
    assert isinstance(refused, RowProblem)
    assert "of the tool_calls of a message of the assistant" in refused.detail


def test_reasoning_is_in_the_response(cases: Path) -> None:
    """axolotl#3824."""
    _, pairs, _ = formatted(cases / "C02-reasoning-content" / "pairs.jsonl")
    tokens = tokenize(pairs[0], WITH_TOOLS)
    assert isinstance(tokens, TokenPair)
    assert WITH_TOOLS.decode(tokens.chosen_ids).startswith("<think>\nFirst think about 0.\n</think>\n\nAnswer 0.")


def test_instructions_come_with_their_input_history_and_system(cases: Path) -> None:
    """LlamaFactory#5455, #3495."""
    _, pairs, _ = formatted(cases / "C11-alpaca-input" / "pairs.jsonl")
    assert [(message.role, message.content) for message in pairs[0].prompt] == [
        ("system", "Be brief."),
        ("user", "Hello"),
        ("assistant", "Hi, how can I help?"),
        ("user", "Choose the right option.\nQuestion: What is the capital of France? (A) yes (B) no"),
    ]


def test_roles_of_anthropic_are_known(cases: Path) -> None:
    """LlamaFactory#3264."""
    _, pairs, _ = formatted(cases / "C13-human-assistant" / "pairs.jsonl")
    assert {len(pair.prompt) for pair in pairs} == {3}


def test_null_is_absent(cases: Path) -> None:
    """transformers PR#45422."""
    _, pairs, _ = formatted(cases / "C17-null-content" / "pairs.jsonl")
    assert {len(pair.prompt) for pair in pairs} == {1}


def test_a_prompt_of_messages_as_text_is_refused_like_a_response(cases: Path) -> None:
    """trl PR#6259 kind."""
    with pytest.raises(DataError, match="'prompt' holds a conversation written as text"):
        formatted(cases / "C21-stringified-prompt" / "pairs.jsonl")


def test_what_does_not_fit_the_window_is_refused_by_its_reason(cases: Path) -> None:
    """trl PR#6321, trl#3878: a prompt that fills the window of 512, and answers that differ only behind the cut."""
    template = ChatTemplate.of(chat_families.bare())
    _, pairs, _ = formatted(cases / "C20-window" / "pairs.jsonl")

    def tokens(pair: Pair) -> TokenPair | RowProblem:
        return template.tokenize_pair(pair, max_prompt_tokens=512, max_response_tokens=512, max_tokens=512)

    found = audit(pairs, tokenize=tokens)
    reasons = {row.id.rpartition(":")[2]: row.reason for row in found.dropped_rows}
    assert reasons == dict.fromkeys("1234", Reason.PROMPT_TOO_LONG) | dict.fromkeys("5678", Reason.IDENTICAL_AFTER_CUT)
    assert found.n_kept == 4


@pytest.mark.parametrize("stored", ["rows.parquet", "saved"])
def test_json_columns_give_the_very_texts(stored: str, cases: Path) -> None:
    """datasets 5.2: one list of parts makes `content` a Json column; the answer "42" is the text 42, "true" is true."""
    folder = cases / "C30-json-columns"
    _, texts, _ = formatted(folder / "rows.jsonl")
    _, pairs, _ = formatted(folder / stored)
    assert [(pair.prompt, pair.chosen, pair.rejected) for pair in pairs] == [
        (pair.prompt, pair.chosen, pair.rejected) for pair in texts
    ]
    assert [pair.chosen for pair in pairs[:5]] == ["42", "true", '{"x": 1}', "null", "0.010"]
