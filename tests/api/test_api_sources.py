"""Pairs and models that a program has in memory, as files that a run can be resumed on."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import trimtab
from api_runs import KEYS, rows
from trimtab import windtunnel
from trimtab.api.sources import model_source, pair_source
from trimtab.engine import models, trainable
from trimtab.errors import ConfigError, DataError, ModelError


def lines(source: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(source).read_text(encoding="utf-8").splitlines()]


def as_dataset(values: list[dict[str, Any]]) -> object:
    import datasets

    return datasets.Dataset.from_list(values)


def as_pandas(values: list[dict[str, Any]]) -> object:
    import pandas

    frame = pandas.DataFrame([{"prompt": "no", "chosen": "x", "rejected": "y"}, *values])
    return frame[frame["prompt"] != "no"]  # its index does not begin at 0


def as_polars(values: list[dict[str, Any]]) -> object:
    return pytest.importorskip("polars").DataFrame(values)


def as_arrow(values: list[dict[str, Any]]) -> object:
    import pyarrow

    return pyarrow.Table.from_pylist(values)


@pytest.mark.parametrize("form", [iter, as_dataset, as_pandas, as_polars, as_arrow])
def test_every_form_of_the_same_rows_is_the_same_source(form: Callable[[Any], object]) -> None:
    assert lines(pair_source(rows(3))) == rows(3)
    assert pair_source(form(rows(3))) == pair_source(rows(3))
    assert pair_source(form(rows(3))) != pair_source(rows(2))


def test_messages_and_missing_cells_come_through_a_frame() -> None:
    import pandas

    values = [
        {"prompt": [{"role": "user", "content": "Hi"}], "chosen": [{"role": "assistant", "content": "Yes"}], "n": 1},
        {"prompt": [{"role": "user", "content": "Ho"}], "chosen": [{"role": "assistant", "content": "No"}], "n": None},
    ]
    assert lines(pair_source(pandas.DataFrame(values))) == values


def test_a_dataset_with_a_format_gives_its_values() -> None:
    import datasets

    table = datasets.Dataset.from_list([{**row, "score": 1.5} for row in rows(2)]).with_format("torch")
    assert lines(pair_source(table)) == [{**row, "score": 1.5} for row in rows(2)]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"train": [1]}, "pairs is a dict.*train"),
        (7, "pairs is a int"),
        ([rows(1)[0], "text"], r"pairs\[1\] is a str"),
        ([{"prompt": {1, 2}}], r"pairs\[0\]: .*set"),
        ([{"score": float("nan")}], r"pairs\[0\]: "),
    ],
)
def test_what_is_no_pair_is_refused_by_place(values: Any, words: str) -> None:
    with pytest.raises(DataError) as refused:
        pair_source(values)
    assert __import__("re").search(words, str(refused.value), __import__("re").S)


# --- the model -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any]:
    bundle = models.load(str(windtunnel.model_folder()), dtype="float32", device="cpu")
    return bundle.model, bundle.tokenizer


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.arange(5, 25)[None]).logits


def test_a_loaded_model_is_kept_as_it_is_in_memory(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    first = model_source(model, tokenizer)
    changed = copy.deepcopy(model)
    with torch.no_grad():
        next(changed.parameters()).mul_(1.5)
    second = model_source(changed, tokenizer)
    assert model_source(model, tokenizer) == first != second
    back = models.load(second, dtype="float32", device="cpu").model
    assert torch.equal(logits(back), logits(changed))
    assert not torch.allclose(logits(back), logits(model), atol=1e-3)
    other = copy.deepcopy(tokenizer)
    other.chat_template = "{{ messages[0].content }}"
    third = model_source(model, other)
    assert third not in (first, second)
    assert models.load(third, device="cpu").tokenizer.chat_template == other.chat_template


def test_a_peft_model_is_merged_and_left_alone(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    adapted = trainable.attach_lora(copy.deepcopy(model), rank=2, alpha=4.0)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(len(name)), std=0.05)
    before = {name: tensor.clone() for name, tensor in adapted.state_dict().items()}
    back = models.load(model_source(adapted, tokenizer), dtype="float32", device="cpu").model
    assert torch.allclose(logits(back), logits(adapted), atol=1e-4)
    assert not torch.allclose(logits(back), logits(model), atol=1e-2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in adapted.state_dict().items())


def test_what_is_no_model_is_refused(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    with pytest.raises(ConfigError, match="without a tokenizer"):
        model_source(model, None)
    with pytest.raises(ConfigError, match="has its own"):
        model_source("windtunnel", tokenizer)
    with pytest.raises(ConfigError, match="model is a dict"):
        model_source({}, tokenizer)
    rounded = copy.copy(model)
    rounded.is_quantized = True
    with pytest.raises(ModelError, match="4 or 8 bit"):
        model_source(rounded, tokenizer)


def test_a_loaded_model_trains_as_its_folder_does_and_goes_on(loaded: tuple[Any, Any], tmp_path: Path) -> None:
    model, tokenizer = loaded
    keys = KEYS | {"objective": trimtab.Dpo(beta=0.2), "pairs": iter(rows())}
    memory = trimtab.train(model, tokenizer=tokenizer, out=tmp_path / "memory", **keys)
    folder = trimtab.train(windtunnel.model_folder(), out=tmp_path / "folder", **(keys | {"pairs": rows()}))
    assert list(memory.metrics["loss"]) == list(folder.metrics["loss"])
    assert trimtab.train(model, tokenizer=tokenizer, out=tmp_path / "memory", **(keys | {"pairs": rows()})) == memory
    with pytest.raises(ConfigError, match="another configuration"):
        trimtab.train(model, tokenizer=tokenizer, out=tmp_path / "memory", **(keys | {"pairs": rows(20)}))
