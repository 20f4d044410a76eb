"""A response ends with the first token behind it that ends generation, whatever else the template writes there."""

from __future__ import annotations

import chat_families
import pytest
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from trimtab.data.chat import ChatTemplate
from trimtab.records import Message, Pair, TokenPair

TURNS = "{% for m in messages %}"
GENERATION = "{% if add_generation_prompt %}"
# TRL's cohere2.jinja kind: a mark closes the answer, the next one the turn
TWO_MARKS = (
    TURNS + "<|im_start|>{{ m.role }}\n{{ m.content }}{% if m.role == 'assistant' %}</answer>{% endif %}<|im_end|>\n"
    "{% endfor %}" + GENERATION + "<|im_start|>assistant\n{% endif %}"
)
# GLM-4: nothing is written behind an answer; the next question begins with a mark that ends generation
GLM = TURNS + "<|{{ m.role }}|>\n{{ m.content }}{% endfor %}" + GENERATION + "<|assistant|>\n{% endif %}"
GLM_WITH_MARK = GLM.replace("{{ m.content }}", "{{ m.content }}{% if m.role == 'assistant' %}</answer>{% endif %}")


def tokenizer(template: str, *, eos: str = "<|im_end|>", special: bool = True) -> PreTrainedTokenizerFast:
    made = chat_families.chatml(template, eos=eos)
    marks = ["</answer>", "<|user|>", "<|assistant|>", "<|system|>"]
    made.add_tokens([AddedToken(mark, special=special and mark != "</answer>") for mark in marks])
    return made


def endings(template: ChatTemplate) -> tuple[str, str]:
    """The chosen response and the end that a sampled answer stops at, as text."""
    pair = Pair("x", (Message("user", "Why"),), "I am Bob", "No")
    outcome = template.tokenize_pair(pair, max_prompt_tokens=99, max_response_tokens=99)
    assert isinstance(outcome, TokenPair), outcome
    assert outcome.chosen_ids[-1] == outcome.rejected_ids[-1] == template.end_id == template.stop_ids[0]
    assert outcome.chosen_ids.count(template.end_id) == 1
    return template.decode(outcome.chosen_ids), template.answer_text(outcome.chosen_ids[:-1])


CASES: dict[str, tuple[str, str, list[str] | None, str]] = {
    # name: (template, eos_token, eos_token_id of the generation config, chosen response)
    "two marks": (TWO_MARKS, "<|im_end|>", None, "I am Bob</answer><|im_end|>"),
    "two marks, by the generation config": (
        TWO_MARKS, "<|endoftext|>", ["<|endoftext|>", "<|im_end|>"], "I am Bob</answer><|im_end|>",
    ),
    "GLM": (GLM, "<|endoftext|>", ["<|endoftext|>", "<|user|>"], "I am Bob<|user|>"),
    "GLM with a mark": (GLM_WITH_MARK, "<|endoftext|>", ["<|endoftext|>", "<|user|>"], "I am Bob</answer><|user|>"),
    "base model with a chat template": (chat_families.QWEN25, "<|endoftext|>", ["<|endoftext|>"], "I am Bob<|im_end|>"),
    "no end written": (GLM, "<|endoftext|>", ["<|endoftext|>"], "I am Bob<|endoftext|>"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("special", [True, False], ids=["special", "not flagged"])
def test_the_end_is_the_first_token_that_ends_generation(name: str, special: bool) -> None:
    """trl PR#6044 (GLM: `<|user|>`, an id of eos_token_id), TRL's cohere2.jinja (`</answer>`, then the end), open-r1
    PR#663 (a base model's generation config does not know the end that its template writes)."""
    text, eos, generation, chosen = CASES[name]
    made = tokenizer(text, eos=eos, special=special)
    ids = None if generation is None else [made.convert_tokens_to_ids(token) for token in generation]
    template = ChatTemplate.of(made, generation_end_ids=ids)
    assert endings(template) == (chosen, "I am Bob"), "and an answer for people has neither mark"
    assert set(template.stop_ids) == {template.end_id, made.eos_token_id, *(ids or ())}


def test_another_end_is_another_digest() -> None:
    made = tokenizer(GLM, eos="<|endoftext|>")
    user = made.convert_tokens_to_ids("<|user|>")
    assert ChatTemplate.of(made).digest != ChatTemplate.of(made, generation_end_ids=[user]).digest
