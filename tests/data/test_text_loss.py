"""Nothing is lost between a row and its ids unless it is said; no id is one that the model does not know."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import chat_families
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from trimtab.data.chat import ChatTemplate
from trimtab.data.loading import load_chat_template
from trimtab.data.problems import Reason, RowProblem
from trimtab.data.text_loss import lost_characters, lost_layout, lost_spaces
from trimtab.errors import DataError
from trimtab.records import Message, Pair, TokenPair

QUESTION = (Message("user", "Why"),)


def outcome_of(
    template: ChatTemplate, chosen: str, *, prompt: tuple[Message, ...] = QUESTION, rejected: str = "No"
) -> TokenPair | RowProblem:
    return template.tokenize_pair(Pair("row", prompt, chosen, rejected), max_prompt_tokens=999, max_response_tokens=999)


def refused(outcome: TokenPair | RowProblem, reason: Reason) -> str:
    assert isinstance(outcome, RowProblem), outcome
    assert outcome.reason is reason, outcome
    return outcome.detail


def characters(*, unknown: str | None = None, fold: bool = False) -> PreTrainedTokenizerFast:
    """A vocabulary of ASCII alone: other characters become `unknown`, or vanish without one."""
    vocabulary = {character: number for number, character in enumerate(map(chr, range(32, 127)))}
    if unknown is not None:
        vocabulary[unknown] = len(vocabulary)
    backend = Tokenizer(models.BPE(vocabulary, [], unk_token=unknown))
    backend.decoder = decoders.Fuse()
    backend.normalizer = normalizers.Lowercase() if fold else None
    backend.add_special_tokens(["<|end|>"])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>", clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("unknown", [None, "<unk>"], ids=["vanishes", "unknown token"])
def test_text_that_the_vocabulary_lacks_is_refused(unknown: str | None) -> None:
    """tokenizers#504 kind: without an unknown token the characters vanish, with one they are one and the same id. Of
    the answer's 24 characters that are no white space 0 and the full stop are left."""
    template = ChatTemplate.of(characters(unknown=unknown))
    detail = refused(outcome_of(template, "Добрый день 0 🙂 и до свидания."), Reason.TEXT_LOST)
    assert detail.startswith("the tokenizer cannot write 22 of 24 characters of a response: ")
    prompt = (Message("user", "Почему?"),)
    assert "of the prompt" in refused(outcome_of(template, "Yes", prompt=prompt), Reason.TEXT_LOST)


def test_a_little_lost_is_said_with_its_share() -> None:
    template = ChatTemplate.of(characters())
    assert isinstance(outcome_of(template, "Yes, I am quite sure of that 🙂"), TokenPair)
    assert isinstance(outcome_of(template, "Yes, I am quite sure of it."), TokenPair)
    # (Why + 23 characters that are no white space + No) + (Why + 21 + No)
    assert (template.loss.losses, template.loss.n_characters) == (Counter("🙂"), 2 * 5 + 23 + 21)
    assert template.loss.sentences == ["the tokenizer cannot write 1.85% of the text: '🙂' 1 (first: row)"]


def test_a_tokenizer_that_folds_case_is_said_to() -> None:
    template = ChatTemplate.of(characters(fold=True))
    assert isinstance(outcome_of(template, "Yes, I am quite sure of that, and so are you."), TokenPair) is False
    prompt = (Message("user", "why is that so?"),)
    assert isinstance(
        outcome_of(template, "Yes, that is quite so.", prompt=prompt, rejected="no, not at all"), TokenPair
    )
    assert template.loss.losses == Counter("Y")


def test_spaces_that_vanish_are_a_loss_and_those_at_edges_are_none() -> None:
    question = "What is the capital of France?"
    fused = "<|user|>WhatisthecapitalofFrance?<|end|>"
    assert lost_spaces([question], text=f"<|user|>\n{question}<|end|>\n", text_left=fused) == 5
    assert lost_characters(f"<|user|>\n{question}", "<|user|>WhatisthecapitalofFrance?") == Counter()
    assert lost_spaces([" a b\n\nc ﬁ d "], text=" a b\n\nc ﬁ d ", text_left="a b c fi d") == 0
    assert lost_characters(" a b\n\nc ﬁ d ", "a b c fi d") == Counter()


def phi3() -> PreTrainedTokenizerFast:
    """Phi-3: every mark swallows the white space behind it."""
    text = (
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    )
    made = chat_families.chatml(text, eos="<|endoftext|>")
    marks = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
    made.add_tokens([AddedToken(mark, rstrip=True, normalized=False, special=True) for mark in marks])
    return made


def test_short_turns_between_marks_that_swallow_spaces_are_no_loss() -> None:
    """Phi-3, V14-leading-space: of five short turns most white space stands beside marks."""
    turns = ["first?", "one", "second?", "two", "What is the capital of France?"]
    prompt = tuple(Message("assistant" if n % 2 else "user", text) for n, text in enumerate(turns))
    template = ChatTemplate.of(phi3(), generation_end_ids=phi3().convert_tokens_to_ids("<|end|>"))
    assert isinstance(outcome_of(template, "\n\n  Paris", prompt=prompt), TokenPair)
    assert template.loss.sentences == []


CODE = "def f(x):\n    if x:\n\treturn  1"


def test_layout_that_a_tokenizer_loses_is_said() -> None:
    """tokenizers#504 kind: of a vocabulary of ASCII without line feed and tab, code comes back on one line."""
    template = ChatTemplate.of(characters())
    assert isinstance(outcome_of(template, CODE), TokenPair)
    assert template.loss.losses == Counter({"\n": 2, "\t": 1})
    collapsed = CODE.split()
    assert lost_layout([CODE], text=CODE, text_left=" ".join(collapsed)) == Counter({"\n": 2, "\t": 1, " ": 4})
    assert lost_layout([f"\n{CODE} "], text=f"<|a|>\n{CODE}\n", text_left=f"<|a|>{CODE}") == Counter()


def test_families_lose_nothing() -> None:
    for make in (chat_families.chatml, chat_families.llama3, chat_families.gemma2, chat_families.mistral):
        template = ChatTemplate.of(make())
        assert isinstance(outcome_of(template, "Добрый день 0 🙂\n\n  и до  свидания. ﬁ½"), TokenPair)
        assert template.loss.sentences == []


# ---- templates that leave text out -----------------------------------------------------------------------------------


def chatml(content: str, *, start: str = "<|im_start|>") -> str:
    """A ChatML template that writes `content` for a message's text."""
    return (
        f"{{% for m in messages %}}{start}{{{{ m.role }}}}\n{{{{ {content} }}}}<|im_end|>\n{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{start}assistant\n{{% endif %}}"
    )


CUTS_THOUGHTS = chatml("m.content.split('</think>')[-1] if m.role == 'assistant' else m.content")
STRIPS_THOUGHTS = chatml("m.content.split('<think>')[0] ~ m.content.split('</think>')[-1]")
SHORTENS = chatml("m.content[:40]")
TRIMS = chatml("m.content | trim")
COLLAPSES = chatml("m.content.split() | join(' ')")
# Qwen3's: the reasoning and what follows it are stripped, and written with line feeds of the template's own
SETS_THOUGHTS = chatml(
    "('<think>\\n' ~ m.content.split('</think>')[0].split('<think>')[-1].strip() ~ '\\n</think>\\n\\n'"
    " ~ m.content.split('</think>')[-1].lstrip()) if '</think>' in m.content else m.content"
)


@pytest.mark.parametrize("text", [CUTS_THOUGHTS, STRIPS_THOUGHTS, SHORTENS])
def test_a_response_that_the_template_cuts_is_refused(text: str) -> None:
    """DeepSeek-R1#633, trl PR#6766: the template writes what follows `</think>` alone. Right: SECRET stands in the ids
    of the chosen response, or the row is refused."""
    template = ChatTemplate.of(chat_families.chatml(text))
    outcome = outcome_of(template, "<think>\nSECRET0 reasoning\n</think>\n\nGood 0, and that is all.")
    assert "leaves out or changes" in refused(outcome, Reason.TEXT_LOST)
    assert isinstance(outcome_of(template, "Good 0."), TokenPair)


def test_a_prompt_that_the_template_cuts_is_refused_but_for_earlier_thoughts() -> None:
    template = ChatTemplate.of(chat_families.chatml(SHORTENS))
    prompt = (Message("user", "Why are you Bob and not Ann, who is older than you are?"),)
    assert "message of the user" in refused(outcome_of(template, "Yes", prompt=prompt), Reason.TEXT_LOST)
    thought = Message("assistant", "<think>\nSECRET\n</think>\n\nHello")
    earlier = (Message("user", "Hello"), thought, *QUESTION)
    template = ChatTemplate.of(chat_families.chatml(CUTS_THOUGHTS))
    assert isinstance(outcome_of(template, "Yes", prompt=earlier), TokenPair), "generation sees the same prompt"


def test_a_template_that_sets_code_on_one_line_is_refused() -> None:
    """DeepSeek-R1#633's kind, with white space: what the template changes inside of a text is lost."""
    template = ChatTemplate.of(chat_families.chatml(COLLAPSES))
    assert "leaves out or changes" in refused(outcome_of(template, CODE), Reason.TEXT_LOST)
    assert isinstance(outcome_of(template, " One line. "), TokenPair)


def test_white_space_around_reasoning_is_the_templates_own() -> None:
    template = ChatTemplate.of(chat_families.chatml(SETS_THOUGHTS))
    outcome = outcome_of(template, "<think>First\n  this.</think>Good\n 0.")
    assert isinstance(outcome, TokenPair)
    assert template.decode(outcome.chosen_ids) == "<think>\nFirst\n  this.\n</think>\n\nGood\n 0.<|im_end|>"


def test_white_space_at_the_edges_may_go() -> None:
    """Phi-3's marks strip to the right. Right: a response without its leading white space, closed by its end."""
    template = ChatTemplate.of(chat_families.chatml(TRIMS))
    outcome = outcome_of(template, "\n\n   I am Bob ")
    assert isinstance(outcome, TokenPair)
    assert template.decode(outcome.chosen_ids) == "I am Bob<|im_end|>"


# ---- control tokens --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "template"),
    [
        ("<|im_start|>", chat_families.QWEN25),
        ("<|tool_call|>", chat_families.QWEN25),
        ("<｜User｜>", chat_families.QWEN25),
        ("[INST]", "{% for m in messages %}[INST] {{ m.content }}<|im_end|>{% endfor %}"),
        ("<start_of_turn>", chatml("m.content", start="<start_of_turn>")),
    ],
)
def test_control_tokens_that_are_not_flagged_special_count_as_control(token: str, template: str) -> None:
    """axolotl PR#1221: `<|im_start|>` added with add_tokens, so special is false. Right: text that spells it is refused
    as with special ones."""
    made = characters()
    made.add_tokens([AddedToken(mark, special=False) for mark in (token, "<|im_end|>", "<think>", "\n", "Why")])
    made.chat_template = template
    chat = ChatTemplate.of(made, generation_end_ids=made.convert_tokens_to_ids("<|im_end|>"))
    prompt = (Message("user", f"Why{token}\nassistant"),)
    assert repr(token) in refused(outcome_of(chat, "Yes", prompt=prompt), Reason.CONTROL_TOKEN)
    assert "<|im_end|>" in refused(outcome_of(chat, "Yes<|im_end|>"), Reason.CONTROL_TOKEN)
    assert isinstance(outcome_of(chat, "<think>Why</think>\nYes [x] <b>"), TokenPair), "what is no mark is text"


def test_html_that_spells_a_special_token_is_refused_by_name() -> None:
    """Answers with HTML's <s>…</s> where these are the tokenizer's BOS and EOS."""
    template = ChatTemplate.of(chat_families.mistral())
    assert "'<s>'" in refused(outcome_of(template, "<s>old</s> <b>new 0</b>"), Reason.CONTROL_TOKEN)


# ---- ids beyond the embedding ----------------------------------------------------------------------------------------


def test_an_id_beyond_the_embedding_is_named_with_the_number_of_rows(tmp_path: Path) -> None:
    """A token was added to the tokenizer, and the embedding not resized: an IndexError in training."""
    made = characters()
    made.add_tokens(["<|tool|>", "sea"])
    made.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 97}), encoding="utf-8")
    size = len(made)
    template = load_chat_template(str(tmp_path), embedding_rows=size - 1)
    detail = f"token 'sea' has id {size - 1}, but the model's embedding has {size - 1} rows"
    assert refused(outcome_of(template, "the sea"), Reason.UNKNOWN_TO_MODEL) == detail
    assert refused(outcome_of(template, "Yes", prompt=(Message("user", "sea"),)), Reason.UNKNOWN_TO_MODEL) == detail
    assert isinstance(outcome_of(template, "the see"), TokenPair)
    with pytest.raises(DataError, match="has id"):
        template.prompt_ids([Message("user", "sea")])
    assert isinstance(outcome_of(load_chat_template(str(tmp_path), embedding_rows=size), "the sea"), TokenPair)


def test_pre_tokenizers_that_drop_text_are_found_out() -> None:
    backend = byte_level = chat_families.bare().backend_tokenizer
    digits = pre_tokenizers.Split("7", behavior="removed")
    backend.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level.pre_tokenizer])
    made = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")
    assert "cannot write 3 of 5" in refused(outcome_of(ChatTemplate.of(made), "No 777"), Reason.TEXT_LOST)
