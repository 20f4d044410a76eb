"""Reward models: small ones with random weights, made here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from trimtab import windtunnel
from trimtab.engine.reward import RewardModel
from trimtab.errors import ModelError, NumericsError
from trimtab.records import Message

TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
WORDS = ["the", "sum", "of", "three", "and", "five", "is", "eight", "red", "blue", "green", "cat", "dog"]


def write(folder: Path, *, template: bool = True, pad: int | None = 0, **settings: Any) -> Path:
    """A Qwen2 classifier with random weights, and the wind tunnel's tokenizer."""
    from transformers import Qwen2Config, Qwen2ForSequenceClassification

    torch.manual_seed(0)
    shape = {
        "vocab_size": 1024,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,
        "num_labels": 1,
        "pad_token_id": pad,
        "attention_dropout": 0.5,
    }
    Qwen2ForSequenceClassification(Qwen2Config(**(shape | settings))).save_pretrained(folder)
    for name in TOKENIZER:
        told = json.loads((windtunnel.model_folder() / name).read_text(encoding="utf-8"))
        if not template:
            told.pop("chat_template", None)
        (folder / name).write_text(json.dumps(told))
    return folder


def asked(n: int, *, longest: int = 20) -> list[tuple[Message, Message]]:
    def words(start: int, count: int) -> str:
        return " ".join(WORDS[(7 * start + 3 * k) % len(WORDS)] for k in range(count))

    return [
        (Message("user", words(i, 2 + i % 5)), Message("assistant", words(3 * i + 1, 1 + (5 * i) % longest)))
        for i in range(n)
    ]


@pytest.mark.parametrize("pad", [0, None])
def test_a_batch_scores_as_one_by_one(tmp_path: Path, pad: int | None) -> None:
    model = RewardModel.load(write(tmp_path, pad=pad))
    some = asked(17)
    together = model.scores(some)
    alone = [model.scores([one])[0] for one in some]
    assert together == pytest.approx(alone, abs=1e-5)
    assert len({round(score or 0, 4) for score in together}) == 17


def test_the_score_is_the_models_own_logit(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = write(tmp_path)
    conversation = (Message("user", "the red cat"), Message("assistant", "eight"))
    told = [message.to_json() for message in conversation]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.apply_chat_template(told, return_tensors="pt", return_dict=True)["input_ids"]
    plain = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        assert RewardModel.load(folder).scores([conversation]) == pytest.approx(plain(ids).logits.flatten().tolist())


def test_without_a_chat_template_prompt_and_answer_are_a_pair(tmp_path: Path) -> None:
    model = RewardModel.load(write(tmp_path, template=False))
    ids = model._ids((Message("user", "the red cat"), Message("assistant", "eight")))
    assert ids == model.tokenizer("the red cat", "eight").input_ids
    assert model.tokenizer.decode(ids) == "the red cateight"  # this tokenizer puts nothing between them


def test_what_does_not_fit_has_no_score_and_is_not_cut(tmp_path: Path) -> None:
    model = RewardModel.load(write(tmp_path))
    long = (Message("user", "first"), Message("assistant", "cat " * 80))
    first, second = model.scores([long, asked(1)[0]])
    assert first is None
    assert second is not None


def test_another_classifier_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="gives 3 scores"):
        RewardModel.load(write(tmp_path / "three", num_labels=3))


def test_a_language_model_has_no_head_that_scores(tmp_path: Path) -> None:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    folder = write(tmp_path)
    config = Qwen2Config.from_pretrained(folder)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(told | {"id2label": {"0": "x"}, "label2id": {"x": 0}}))
    with pytest.raises(ModelError, match="was not trained to score"):
        RewardModel.load(folder)


def test_a_score_that_is_not_finite_stops(tmp_path: Path) -> None:
    model = RewardModel.load(write(tmp_path))
    with torch.no_grad():
        model.model.score.weight.fill_(float("nan"))
    with pytest.raises(NumericsError, match=r"answer [12] of 2"):
        model.scores(asked(2))
