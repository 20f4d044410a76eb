"""The recipe: from nothing to a plain folder, the same one each time."""

from __future__ import annotations

import math
from itertools import islice
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from trimtab.windtunnel import recipe
from trimtab.windtunnel.tokenizer import build_tokenizer


def test_a_few_steps_give_a_folder_that_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe.main(["--out", str(tmp_path / "model"), "--steps", "4", "--figures", "8"])
    said = capsys.readouterr().out
    assert "lessons 3/3" in said
    assert "demonstrations 1/1" in said
    assert "humanities" in said
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert model.config.vocab_size == len(tokenizer)
    assert tokenizer.chat_template


def test_the_same_seed_gives_the_same_weights() -> None:
    (first, _), (second, _), (other, _) = (recipe.train(steps=3, seed=seed) for seed in (0, 0, 1))
    same = [torch.equal(p, q) for p, q in zip(first.parameters(), second.parameters(), strict=True)]
    assert all(same)
    assert not torch.equal(first.model.embed_tokens.weight, other.model.embed_tokens.weight)


def test_twenty_steps_lower_the_loss_on_unseen_rows() -> None:
    model, tokenizer = recipe.train(steps=20, seed=0)
    ids_RT, labels_RT = next(recipe._batches(tokenizer, seed=5, plain=True))
    with torch.no_grad():
        loss = model(input_ids=ids_RT, labels=labels_RT).loss.item()
    assert loss < math.log(len(tokenizer)) - 1.0  # a model that knows nothing has ln(vocabulary)


def test_labels_cover_the_response_and_its_end_alone() -> None:
    tokenizer = build_tokenizer(seed=0)
    for ids_RT, labels_RT in islice(recipe._batches(tokenizer, seed=0, plain=False), 3):
        for ids_T, labels_T in zip(ids_RT, labels_RT, strict=True):
            told = labels_T != -100
            assert torch.equal(ids_T[told], labels_T[told])
            assert labels_T[told][-1] == tokenizer.eos_token_id
            before = tokenizer.decode(ids_T[: int(told.nonzero()[0])])
            assert before.startswith("<|im_start|>user\n")
            assert before.endswith("<|im_end|>\n<|im_start|>assistant\n")
            assert bool((ids_T[int(told.nonzero()[-1]) + 1 :] == tokenizer.pad_token_id).all())
