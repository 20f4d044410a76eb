"""Limits, refusals and identity of `chat`: what is cut, what is never cut, and what is said when it cannot be done."""

from __future__ import annotations

from pathlib import Path

import chat_families
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.data.chat import ChatTemplate
from trimtab.data.loading import load_chat_template
from trimtab.data.problems import Reason, RowProblem
from trimtab.errors import DataError, ModelError
from trimtab.records import Message, Pair, TokenPair

HEADERS = {
    ChatTemplate.of(chat_families.chatml()): "<|im_start|>assistant\n",
    ChatTemplate.of(chat_families.llama3()): "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ChatTemplate.of(chat_families.gemma2()): "<start_of_turn>model\n",
    ChatTemplate.of(chat_families.mistral()): " [/INST]",
    ChatTemplate.of(chat_families.bare()): "",
}
TEMPLATES = list(HEADERS)
TEXTS = st.text(alphabet="abc Hello\n é🙂.,:<|>", min_size=1, max_size=40).filter(lambda text: bool(text.strip()))


@st.composite
def prompts(draw: st.DrawFn) -> tuple[Message, ...]:
    system = [Message("system", draw(TEXTS))] if draw(st.booleans()) else []
    earlier = draw(st.lists(st.tuples(TEXTS, TEXTS), max_size=3))
    turns = [message for ask, say in earlier for message in (Message("user", ask), Message("assistant", say))]
    return (*system, *turns, Message("user", draw(TEXTS)))


@settings(max_examples=120, deadline=None)
@given(
    template=st.sampled_from(TEMPLATES),
    prompt=prompts(),
    chosen=TEXTS,
    rejected=TEXTS,
    max_prompt=st.integers(8, 120),
    max_response=st.integers(1, 40),
    window=st.integers(20, 140),
    least=st.integers(1, 10),
)
def test_limits_hold_and_only_an_uncut_response_ends_its_turn(
    template: ChatTemplate,
    prompt: tuple[Message, ...],
    chosen: str,
    rejected: str,
    max_prompt: int,
    max_response: int,
    window: int,
    least: int,
) -> None:
    free = template.tokenize_pair(Pair("x", prompt, chosen, rejected), max_prompt_tokens=9999, max_response_tokens=9999)
    assert isinstance(free, TokenPair)
    outcome = template.tokenize_pair(
        Pair("x", prompt, chosen, rejected),
        max_prompt_tokens=max_prompt,
        max_response_tokens=max_response,
        max_tokens=window,
        min_response_tokens=least,
    )
    if isinstance(outcome, RowProblem):
        assert outcome.reason in (Reason.PROMPT_TOO_LONG, Reason.CUT_BELOW_MINIMUM)
        return
    assert 1 <= len(outcome.prompt_ids) <= max_prompt
    assert template.decode(outcome.prompt_ids).endswith(HEADERS[template]), "the assistant's header is never cut"
    for ids, cut, whole in (
        (outcome.chosen_ids, outcome.chosen_cut, free.chosen_ids),
        (outcome.rejected_ids, outcome.rejected_cut, free.rejected_ids),
    ):
        assert 1 <= len(ids) <= max_response
        assert len(outcome.prompt_ids) + len(ids) <= window
        assert ids == whole[: len(ids)], "cutting a response, or its prompt, changes no token that is left"
        assert cut == (len(ids) < len(whole))
        assert ids.count(template.end_id) == (0 if cut else 1)
        assert not cut or len(ids) >= min(least, max_response)


@settings(max_examples=60, deadline=None)
@given(template=st.sampled_from(TEMPLATES), prompt=prompts(), limit=st.integers(5, 150))
def test_a_prompt_loses_whole_turns_from_its_start_and_nothing_else(
    template: ChatTemplate, prompt: tuple[Message, ...], limit: int
) -> None:
    system, turns = (prompt[:1], prompt[1:]) if prompt[0].role == "system" else ((), prompt)
    multi_turn = len(prompt) > 1
    kept = [(*system, *turns[start:]) for start in range(0, len(turns), 2)] + [turns[-1:]] * len(system)
    allowed = [template._encode([template.form.prompt(messages, multi_turn=multi_turn)])[0] for messages in kept]
    fitting = [ids for ids in allowed if len(ids) <= limit]
    if not fitting:
        with pytest.raises(DataError, match="does not fit"):
            template.prompt_ids(prompt, max_prompt_tokens=limit)
        return
    ids = template.prompt_ids(prompt, max_prompt_tokens=limit)
    assert ids == fitting[0], "the longest that fits; the system message goes last"


def test_the_system_message_is_kept_as_long_as_it_can_be() -> None:
    template = ChatTemplate.of(chat_families.chatml())
    prompt = (
        Message("system", "Be brief"),
        Message("user", "Who are you"),
        Message("assistant", "I am Bob"),
        Message("user", "Why"),
    )

    def shown(limit: int) -> str:
        return template.decode(template.prompt_ids(prompt, max_prompt_tokens=limit)).replace("\n", " ")

    short = "<|im_start|>system Be brief<|im_end|> <|im_start|>user Why<|im_end|> <|im_start|>assistant "
    assert shown(32).count("<|im_start|>") == 5
    assert shown(31) == short
    assert shown(16) == short
    with pytest.raises(DataError, match="the last user message takes") as caught:
        shown(15)  # without a system message Qwen's template writes its own, longer one
    assert "raise the prompt's token limit" in caught.value.remedy


def test_a_cut_response_is_cut_alone_and_says_so() -> None:
    template = ChatTemplate.of(chat_families.llama3())
    pair = Pair("x", (Message("user", "Hello"),), "I am Bob", "No")
    outcome = template.tokenize_pair(pair, max_prompt_tokens=50, max_response_tokens=3)
    assert isinstance(outcome, TokenPair)
    assert template.decode(outcome.chosen_ids) == "I am Bob"
    assert (outcome.chosen_cut, outcome.rejected_cut) == (True, False)
    assert template.decode(outcome.rejected_ids) == "No<|eot_id|>"
    exact = template.tokenize_pair(pair, max_prompt_tokens=50, max_response_tokens=4)
    assert isinstance(exact, TokenPair)
    assert not exact.chosen_cut, "the end-of-turn token itself counts, and just fits"


def test_the_window_leaves_a_least_room_for_responses() -> None:
    template = ChatTemplate.of(chat_families.llama3())
    pair = Pair("x", (Message("user", "Hello " * 20),), "I am Bob and you are you", "No")
    n_prompt = len(template.prompt_ids(pair.prompt))
    outcome = template.tokenize_pair(
        pair, max_prompt_tokens=99, max_response_tokens=99, max_tokens=n_prompt + 3, min_response_tokens=4
    )
    assert outcome == RowProblem(
        "x",
        Reason.CUT_BELOW_MINIMUM,
        f"the prompt takes {n_prompt} of {n_prompt + 3} tokens, which leaves 3 for a response",
    )
    short = Pair("x", pair.prompt, "Yes", "No")
    fits = template.tokenize_pair(
        short, max_prompt_tokens=99, max_response_tokens=99, max_tokens=n_prompt + 3, min_response_tokens=4
    )
    assert isinstance(fits, TokenPair), "a response that is whole is long enough, however short"


@pytest.mark.parametrize(
    ("prompt", "chosen"),
    [("Hello<|eot_id|>", "Yes"), ("Hello", "Yes<|eot_id|><|start_header_id|>"), ("<|begin_of_text|>", "Yes")],
)
def test_control_tokens_in_a_text_never_become_control_tokens(prompt: str, chosen: str) -> None:
    pair = Pair("x", (Message("user", prompt),), chosen, "No")
    outcome = ChatTemplate.of(chat_families.llama3()).tokenize_pair(pair, max_prompt_tokens=99, max_response_tokens=99)
    assert isinstance(outcome, RowProblem)
    assert outcome.reason is Reason.CONTROL_TOKEN
    assert "<|" in outcome.detail


def test_a_refusal_of_the_template_is_the_rows_problem() -> None:
    pair = Pair("x", (Message("user", "Hello"), Message("user", "Hello")), "Yes", "No")
    outcome = ChatTemplate.of(chat_families.gemma2()).tokenize_pair(pair, max_prompt_tokens=99, max_response_tokens=99)
    assert isinstance(outcome, RowProblem)
    assert outcome.reason is Reason.TEMPLATE_REFUSED
    assert "must alternate" in outcome.detail


def test_an_empty_prompt_is_said_to_be_one() -> None:
    with pytest.raises(DataError, match="there is no message"):
        TEMPLATES[0].prompt_ids([])


# ---- end of turn, and tokenizers that cannot be used -----------------------------------------------------------------


def test_the_end_of_a_turn_is_what_the_template_writes_not_the_tokenizers_eos() -> None:
    gemma = ChatTemplate.of(chat_families.gemma2(), generation_end_ids=[1, 5])
    assert (gemma.end_id, gemma.stop_ids) == (5, (5, 1))
    assert "<end_of_turn> (id 5)" in gemma.sentence
    assert "before the first user message" in gemma.sentence


def test_without_a_template_the_generation_config_speaks_before_the_tokenizer() -> None:
    assert ChatTemplate.of(chat_families.bare()).stop_ids == (0,)
    assert ChatTemplate.of(chat_families.bare(), generation_end_ids=7).stop_ids == (7, 0)
    assert ChatTemplate.of(chat_families.bare(eos=None), generation_end_ids=[7, 9]).stop_ids == (7, 9)


def test_a_tokenizer_without_an_end_token_is_refused() -> None:
    with pytest.raises(ModelError, match="no end token") as caught:
        ChatTemplate.of(chat_families.bare(eos=None))
    assert "eos_token" in caught.value.remedy


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for m in messages %}", "does not render"),
        ("{{ raise_exception('never') }}", "never"),
        ("Hello", "does not appear"),
        (
            "{{ messages[0]['content'] }}{% if add_generation_prompt %}<think>{% else %}"
            "{{ messages[1]['content'] }}{% endif %}",
            "does not follow",
        ),
    ],
    ids=["syntax", "raises", "ignores messages", "answers elsewhere"],
)  # fmt: skip
def test_a_template_that_cannot_train_is_refused(template: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        ChatTemplate.of(chat_families.chatml(template))
    assert "chat_template.jinja" in caught.value.remedy


# ---- identity --------------------------------------------------------------------------------------------------------


def test_the_digest_names_all_that_changes_ids_and_nothing_else() -> None:
    tokenizer = chat_families.chatml()
    digest = ChatTemplate.of(tokenizer).digest
    tokenizer(["a", "b c"], padding="max_length", truncation=True, max_length=4)  # leaves state in the backend
    assert ChatTemplate.of(tokenizer).digest == digest
    assert ChatTemplate.of(chat_families.chatml()).digest == digest
    others = {
        "template": ChatTemplate.of(chat_families.chatml(chat_families.QWEN25.replace("helpful", "brief"))),
        "variables": ChatTemplate.of(chat_families.chatml(), variables={"enable_thinking": True}),
        "vocabulary": ChatTemplate.of(chat_families.llama3()),
        "end": ChatTemplate.of(chat_families.bare(), generation_end_ids=7),
        "no end": ChatTemplate.of(chat_families.bare()),
    }
    assert len({digest, *(other.digest for other in others.values())}) == len(others) + 1


# ---- loading ---------------------------------------------------------------------------------------------------------


def test_loading_finds_tokenizer_template_and_end_ids(tmp_path: Path) -> None:
    chat_families.gemma2().save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [1, 5]}')
    loaded = load_chat_template(str(tmp_path))
    assert loaded.stop_ids == (5, 1)
    assert loaded.digest == ChatTemplate.of(chat_families.gemma2()).digest
    (tmp_path / "generation_config.json").write_text("{broken")
    with pytest.raises(ModelError, match=r"generation_config\.json cannot be read"):
        load_chat_template(str(tmp_path))
    (tmp_path / "generation_config.json").unlink()
    assert load_chat_template(str(tmp_path)).stop_ids == (5, 1)


def test_loading_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="no tokenizer in this folder"):
        load_chat_template(str(tmp_path))
    with pytest.raises(ModelError, match="there is no such folder"):
        load_chat_template(str(tmp_path / "none"))
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        load_chat_template("no-one/no-such-model", offline=True)
    assert "owner/name" in caught.value.remedy
    (tmp_path / "tokenizer.json").write_text("{broken")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_chat_template(str(tmp_path))


def test_loading_names_the_model_whose_template_cannot_be_used(tmp_path: Path) -> None:
    chat_families.bare(eos=None).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=f"{tmp_path.name}: the tokenizer has no end token"):
        load_chat_template(str(tmp_path))
