"""Golden tokens: exactly what the model sees, family by family. Every list was read against the family's own format."""

from __future__ import annotations

import chat_families
import pytest

from trimtab.data.audit import Auditor
from trimtab.data.chat import ChatTemplate
from trimtab.records import Message, Pair, TokenPair

SYSTEM = Message("system", "Be brief")
ONE = (Message("user", "Hello world"),)
MANY = (Message("user", "Who are you"), Message("assistant", "I am Bob"), Message("user", "Why"))
EDGES = (Message("user", " Why\n"),)

FAMILIES = {
    "chatml": chat_families.chatml,
    "qwen3": lambda: chat_families.chatml(chat_families.QWEN3),
    "llama3": chat_families.llama3,
    "gemma2": chat_families.gemma2,
    "mistral": chat_families.mistral,
    "zephyr": chat_families.zephyr,
    "plain": chat_families.bare,
}

# family: (system and one question, several turns, question with white space at its edges), tokens parted by spaces
PROMPTS = {
    "chatml": (
        "<|im_start|> system Ċ Be Ġbrief <|im_end|> Ċ <|im_start|> user Ċ Hello Ġworld <|im_end|> Ċ "
        "<|im_start|> assistant Ċ",
        "<|im_start|> system Ċ Be Ġbrief <|im_end|> Ċ <|im_start|> user Ċ Who Ġare Ġyou <|im_end|> Ċ "
        "<|im_start|> assistant Ċ "
        "I Ġam ĠBob <|im_end|> Ċ <|im_start|> user Ċ Why <|im_end|> Ċ <|im_start|> assistant Ċ",
        "<|im_start|> system Ċ Be Ġbrief <|im_end|> Ċ <|im_start|> user Ċ ĠWhy Ċ <|im_end|> Ċ <|im_start|> assistant Ċ",
    ),
    "qwen3": (
        "<|im_start|> system Ċ Be Ġbrief <|im_end|> Ċ <|im_start|> user Ċ Hello Ġworld <|im_end|> Ċ "
        "<|im_start|> assistant Ċ "
        "<think> ĊĊ </think> ĊĊ",
        "<|im_start|> system Ċ Be Ġbrief <|im_end|> Ċ <|im_start|> user Ċ Who Ġare Ġyou <|im_end|> Ċ "
        "<|im_start|> assistant Ċ "
        "I Ġam ĠBob <|im_end|> Ċ <|im_start|> user Ċ Why <|im_end|> Ċ <|im_start|> assistant Ċ <think> ĊĊ </think> ĊĊ",
        "<|im_start|> system Ċ Be Ġbrief <|im_end|> Ċ <|im_start|> user Ċ ĠWhy Ċ <|im_end|> Ċ <|im_start|> assistant Ċ "
        "<think> ĊĊ </think> ĊĊ",
    ),
    "llama3": (
        "<|begin_of_text|> <|start_header_id|> system <|end_header_id|> ĊĊ Be Ġbrief <|eot_id|> "
        "<|start_header_id|> user "
        "<|end_header_id|> ĊĊ Hello Ġworld <|eot_id|> <|start_header_id|> assistant <|end_header_id|> ĊĊ",
        "<|begin_of_text|> <|start_header_id|> system <|end_header_id|> ĊĊ Be Ġbrief <|eot_id|> "
        "<|start_header_id|> user "
        "<|end_header_id|> ĊĊ Who Ġare Ġyou <|eot_id|> <|start_header_id|> assistant <|end_header_id|> ĊĊ I Ġam ĠBob "
        "<|eot_id|> <|start_header_id|> user <|end_header_id|> ĊĊ Why <|eot_id|> <|start_header_id|> assistant "
        "<|end_header_id|> ĊĊ",
        "<|begin_of_text|> <|start_header_id|> system <|end_header_id|> ĊĊ Be Ġbrief <|eot_id|> "
        "<|start_header_id|> user "
        "<|end_header_id|> ĊĊ Why <|eot_id|> <|start_header_id|> assistant <|end_header_id|> ĊĊ",
    ),
    "gemma2": (
        "<bos> <start_of_turn> user <0x0A> Be ▁brief <0x0A> <0x0A> Hello ▁world <end_of_turn> <0x0A> "
        "<start_of_turn> model "
        "<0x0A>",
        "<bos> <start_of_turn> user <0x0A> Be ▁brief <0x0A> <0x0A> Who ▁are ▁you <end_of_turn> <0x0A> "
        "<start_of_turn> model "
        "<0x0A> I ▁am ▁Bob <end_of_turn> <0x0A> <start_of_turn> user <0x0A> Why <end_of_turn> <0x0A> "
        "<start_of_turn> model "
        "<0x0A>",
        "<bos> <start_of_turn> user <0x0A> Be ▁brief <0x0A> <0x0A> ▁Why <end_of_turn> <0x0A> <start_of_turn> "
        "model <0x0A>",
    ),
    "mistral": (
        "<s> ▁ [ INST ] ▁Be ▁brief <0x0A> <0x0A> Hello ▁world ▁ [ / INST ]",
        "<s> ▁ [ INST ] ▁Be ▁brief <0x0A> <0x0A> Who ▁are ▁you ▁ [ / INST ] ▁I ▁am ▁Bob </s> ▁ [ INST ] ▁Why "
        "▁ [ / INST ]",
        "<s> ▁ [ INST ] ▁Be ▁brief <0x0A> <0x0A> ▁Why <0x0A> ▁ [ / INST ]",
    ),
    "zephyr": (
        "< | system | > Ċ Be Ġbrief </s> Ċ < | user | > Ċ Hello Ġworld </s> Ċ < | assistant | > Ċ",
        "< | system | > Ċ Be Ġbrief </s> Ċ < | user | > Ċ Who Ġare Ġyou </s> Ċ < | assistant | > Ċ I Ġam ĠBob </s> Ċ "
        "< | user | > Ċ Why </s> Ċ < | assistant | > Ċ",
        "< | system | > Ċ Be Ġbrief </s> Ċ < | user | > Ċ ĠWhy Ċ </s> Ċ < | assistant | > Ċ",
    ),
    "plain": (
        "Be Ġbrief ĊĊ U s e r : ĠHello Ġworld ĊĊ A s s i s t a n t :",
        "Be Ġbrief ĊĊ U s e r : ĠWho Ġare Ġyou ĊĊ A s s i s t a n t : ĠI Ġam ĠBob ĊĊ U s e r : ĠWhy ĊĊ A s s "
        "i s t a n t :",
        "Be Ġbrief ĊĊ U s e r : Ġ ĠWhy ĊĊ Ċ A s s i s t a n t :",
    ),
}  # fmt: skip

# family: (response "I am Bob", response " Yes \n" with white space at its edges), as they follow PROMPTS
RESPONSES = {
    "chatml": ("I Ġam ĠBob <|im_end|>", "ĠYes Ġ Ċ <|im_end|>"),
    "qwen3": ("I Ġam ĠBob <|im_end|>", "ĠYes Ġ Ċ <|im_end|>"),
    "llama3": ("I Ġam ĠBob <|eot_id|>", "Yes <|eot_id|>"),
    "gemma2": ("I ▁am ▁Bob <end_of_turn>", "Yes <end_of_turn>"),
    "mistral": ("▁I ▁am ▁Bob </s>", "▁ ▁Yes ▁ <0x0A> </s>"),
    "zephyr": ("I Ġam ĠBob </s>", "ĠYes Ġ Ċ </s>"),
    "plain": ("ĠI Ġam ĠBob <|endoftext|>", "Ġ ĠYes Ġ Ċ <|endoftext|>"),
}

# family: ids of "system and one question", of "I am Bob", and of the end-of-turn token
IDS = {
    "chatml": ([1, 355, 201, 342, 288, 2, 201, 1, 358, 201, 328, 268, 2, 201, 1, 366, 201], [43, 279, 282, 2], 2),
    "llama3": (
        [0, 2, 357, 3, 379, 344, 290, 4, 2, 360, 3, 379, 330, 270, 4, 2, 368, 3, 379], [45, 281, 284, 4], 4
    ),
    "gemma2": ([2, 4, 456, 16, 440, 386, 16, 16, 426, 366, 5, 16, 4, 468, 16], [303, 377, 380, 5], 5),
    "mistral": (
        [1, 259, 318, 468, 320, 378, 383, 13, 13, 423, 363, 259, 318, 274, 468, 320], [373, 374, 377, 2], 2
    ),
}  # fmt: skip


def tokenized(template: ChatTemplate, prompt: tuple[Message, ...], chosen: str, rejected: str = "No") -> TokenPair:
    outcome = template.tokenize_pair(
        Pair("row", prompt, chosen, rejected), max_prompt_tokens=200, max_response_tokens=100
    )
    assert isinstance(outcome, TokenPair), outcome
    return outcome


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> tuple[str, ChatTemplate]:
    name: str = request.param
    return name, ChatTemplate.of(FAMILIES[name]())


@pytest.mark.parametrize("case", [0, 1, 2], ids=["system", "many turns", "white space at edges"])
def test_prompts(family: tuple[str, ChatTemplate], case: int) -> None:
    name, template = family
    messages = (SYSTEM, *(ONE, MANY, EDGES)[case])
    ids = template.prompt_ids(messages)
    assert template.tokenizer.convert_ids_to_tokens(list(ids)) == PROMPTS[name][case].split(" ")
    assert tokenized(template, messages, "I am Bob").prompt_ids == ids, "training and generation see the same prompt"


def test_responses(family: tuple[str, ChatTemplate]) -> None:
    name, template = family
    pair = tokenized(template, (SYSTEM, *ONE), "I am Bob", " Yes \n")
    spelled = [template.tokenizer.convert_ids_to_tokens(list(ids)) for ids in (pair.chosen_ids, pair.rejected_ids)]
    assert spelled == [tokens.split(" ") for tokens in RESPONSES[name]]
    for ids in (pair.chosen_ids, pair.rejected_ids):
        assert ids.count(template.end_id) == 1
        assert ids[-1] == template.end_id
    assert not pair.chosen_cut
    assert not pair.rejected_cut


@pytest.mark.parametrize("name", IDS)
def test_ids_mask_and_end_of_turn(name: str) -> None:
    template = ChatTemplate.of(FAMILIES[name]())
    prompt, chosen, end = IDS[name]
    pair = tokenized(template, (SYSTEM, *ONE), "I am Bob")
    assert (list(pair.prompt_ids), list(pair.chosen_ids), template.end_id) == (prompt, chosen, end)
    auditor = Auditor()
    assert auditor.see(Pair("row", (SYSTEM, *ONE), "I am Bob", "No"))
    assert auditor.see_tokens(pair)
    sample = auditor.finish(decode=template.decode).sample
    assert sample is not None
    n = len(prompt)
    assert sample.mask_spans == ((n, n + 4), (n + 4, n + 4 + len(pair.rejected_ids)))
    # SentencePiece drops a text's first space mark when it decodes.
    assert sample.chosen.endswith(f"I am Bob{template.tokenizer.convert_ids_to_tokens(end)}")


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "plain"])
def test_prompt_equals_what_transformers_generates_from(name: str) -> None:
    template = ChatTemplate.of(FAMILIES[name]())
    expected = template.tokenizer.apply_chat_template(
        [message.to_json() for message in MANY], add_generation_prompt=True, return_dict=False, enable_thinking=False
    )
    assert list(template.prompt_ids(MANY)) == expected


def test_default_system_prompt_is_the_templates_own() -> None:
    template = ChatTemplate.of(chat_families.chatml())
    assert template.decode(template.prompt_ids(ONE)) == (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nHello world<|im_end|>\n<|im_start|>assistant\n"
    )


def test_plain_form_of_one_message_is_its_text_and_a_line_feed() -> None:
    template = ChatTemplate.of(chat_families.bare())
    pair = tokenized(template, ONE, "I am Bob")
    assert template.decode(pair.prompt_ids + pair.chosen_ids) == "Hello world\nI am Bob<|endoftext|>"
    spaced = tokenized(template, (Message("user", "Hello "),), "I am Bob")
    assert template.decode(spaced.prompt_ids + spaced.chosen_ids) == "Hello I am Bob<|endoftext|>"


def test_response_that_would_merge_with_the_header_is_told_apart() -> None:
    """`assistant\\n` + `\\n\\nNo`: the joint text has one token for two line feeds, generation could "
    "never produce that."""
    template = ChatTemplate.of(chat_families.chatml())
    pair = tokenized(template, ONE, "\n\nNo", "\nYes")
    assert pair.prompt_ids == template.prompt_ids(ONE)
    tokens = [template.tokenizer.convert_ids_to_tokens(list(ids)) for ids in (pair.chosen_ids, pair.rejected_ids)]
    assert tokens == [["ĊĊ", "No", "<|im_end|>"], ["Ċ", "Yes", "<|im_end|>"]]


def test_no_beginning_of_text_is_doubled_or_invented() -> None:
    for build, bos in ((chat_families.llama3, 0), (chat_families.gemma2, 2), (chat_families.mistral, 1)):
        pair = tokenized(ChatTemplate.of(build()), MANY, "I am Bob")
        assert pair.prompt_ids[0] == bos
        assert (pair.prompt_ids + pair.chosen_ids + pair.rejected_ids).count(bos) == 1
    chatml = ChatTemplate.of(chat_families.chatml())
    assert chatml.tokenizer.bos_token_id is None
    pair = tokenized(chatml, MANY, "I am Bob")
    assert all(isinstance(number, int) for number in pair.prompt_ids + pair.chosen_ids + pair.rejected_ids)


def test_header_is_found_where_a_template_ignores_the_generation_prompt() -> None:
    silent = chat_families.QWEN25.split("{%- if add_generation_prompt %}")[0]
    with_header, without = ChatTemplate.of(chat_families.chatml()), ChatTemplate.of(chat_families.chatml(silent))
    assert without.prompt_ids(MANY) == with_header.prompt_ids(MANY)
    assert tokenized(without, MANY, "I am Bob") == tokenized(with_header, MANY, "I am Bob")


def test_end_is_added_where_a_template_writes_none() -> None:
    open_ended = (
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
    )
    template = ChatTemplate.of(chat_families.chatml(open_ended))
    pair = tokenized(template, ONE, "I am Bob", "I am Bob\n\n")
    assert template.decode(pair.prompt_ids) == "user: Hello world\nassistant:"
    assert template.decode(pair.chosen_ids) == " I am Bob<|im_end|>"
    assert template.decode(pair.rejected_ids) == " I am Bob\n\n<|im_end|>"


def test_the_clock_is_stopped() -> None:
    template = ChatTemplate.of(chat_families.llama3(chat_families.LLAMA32))
    assert "Today Date: 26 Jul 2024\n\n" in template.decode(template.prompt_ids(ONE))
    dated = "{{ strftime_now('%Y-%m-%d %B') }}" + chat_families.LLAMA3
    assert template.decode(ChatTemplate.of(chat_families.llama3(dated)).prompt_ids(ONE)).startswith("2024-07-26 July")


def test_reasoning_marks_in_a_response_are_refused_or_kept_as_the_user_says() -> None:
    tokenizer = chat_families.chatml(chat_families.QWEN3)
    pair = Pair("row", ONE, "<think>\nWhy\n</think>\n\nYes", "No")
    outcome = ChatTemplate.of(tokenizer).tokenize_pair(pair, max_prompt_tokens=99, max_response_tokens=99)
    assert not isinstance(outcome, TokenPair)
    assert outcome.reason == "template_refused"
    thinking = ChatTemplate.of(tokenizer, variables={})
    assert thinking.decode(tokenized(thinking, ONE, pair.chosen).chosen_ids) == f"{pair.chosen}<|im_end|>"
