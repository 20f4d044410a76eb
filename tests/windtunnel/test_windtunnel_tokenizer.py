"""The tiny tokenizer: exact round trips, one token a digit, ChatML."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, Qwen2Tokenizer

from trimtab.windtunnel import model_folder, tasks
from trimtab.windtunnel.demonstrations import demonstration
from trimtab.windtunnel.tokenizer import END, PAD, START, build_tokenizer
from trimtab.windtunnel.world import luck


@pytest.fixture(scope="module")
def tokenizer() -> Qwen2Tokenizer:
    return AutoTokenizer.from_pretrained(model_folder())


def test_the_shipped_tokenizer_is_the_one_that_the_recipe_builds(tokenizer: Qwen2Tokenizer) -> None:
    built = build_tokenizer(seed=0)
    assert built.get_vocab() == tokenizer.get_vocab()
    assert built.chat_template == tokenizer.chat_template


def test_the_world_round_trips_exactly(tokenizer: Qwen2Tokenizer) -> None:
    rng = luck(0)
    for task in tasks(400, seed=0, split="eval"):
        for text in (task.prompt, demonstration(task, rng)):
            ids = tokenizer(text)["input_ids"]
            assert tokenizer.decode(ids) == text
            assert len(ids) < 3 * len(text.split()) + 8


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=60))
def test_any_text_round_trips(tokenizer: Qwen2Tokenizer, text: str) -> None:
    ids = tokenizer(text, split_special_tokens=True)["input_ids"]
    assert tokenizer.decode(ids) == unicodedata.normalize("NFC", text)


def test_digits_stand_alone(tokenizer: Qwen2Tokenizer) -> None:
    tokens = tokenizer.tokenize("12 plus 345")
    assert [t for t in tokens if any(c.isdigit() for c in t)] == ["1", "2", "3", "4", "5"]


def test_special_tokens_are_single_ids_and_vanish_when_skipped(tokenizer: Qwen2Tokenizer) -> None:
    assert tokenizer.pad_token == PAD
    assert tokenizer.eos_token == END
    assert len({tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(START)}) == 3
    ids = tokenizer(f"{START}user\nHi{END}{PAD}")["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "user\nHi"


def test_the_template_is_chatml(tokenizer: Qwen2Tokenizer) -> None:
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "What is 7 plus 5?"},
        {"role": "assistant", "content": "7 plus 5 is 12."},
    ]
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    assert whole == (
        "<|im_start|>system\nBe kind.<|im_end|>\n"
        "<|im_start|>user\nWhat is 7 plus 5?<|im_end|>\n"
        "<|im_start|>assistant\n7 plus 5 is 12.<|im_end|>\n"
    )
    prompt = tokenizer.apply_chat_template(messages[:2], tokenize=False, add_generation_prompt=True)
    assert prompt.endswith("<|im_start|>assistant\n")
    assert whole.startswith(prompt)
    assert tokenizer(whole)["input_ids"][: len(tokenizer(prompt)["input_ids"])] == tokenizer(prompt)["input_ids"]
