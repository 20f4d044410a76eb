"""The reference cache: what changes a number misses, what does not hits, and damage is found and mended."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from trimtab import store
from trimtab.engine import reference
from trimtab.engine.packing import Group
from trimtab.engine.reference import ReferenceKey
from trimtab.engine.scoring import Scorer
from trimtab.errors import NumericsError, StoreError
from trimtab.records import TokenPair

KEY = ReferenceKey(
    weights="w" * 64,
    adapter=None,
    tokenizer="t" * 64,
    truncation=(512, 512),
    dtype="float32",
    device="cpu",
    packed=True,
)


@pytest.fixture(scope="module")
def model() -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.2,
    )
    return Qwen2ForCausalLM(config).eval()


def pairs(n: int, seed: int = 0) -> list[TokenPair]:
    rng = random.Random(seed)  # noqa: S311  # test data

    def ids(low: int, high: int) -> tuple[int, ...]:
        return tuple(rng.randrange(97) for _ in range(rng.randint(low, high)))

    return [TokenPair(f"rows.jsonl:{i + 1}", ids(3, 12), ids(1, 15), ids(1, 15)) for i in range(n)]


class Counting:
    """A real scorer that counts the rows it is asked for."""

    def __init__(self, model: Any) -> None:
        self.scorer = Scorer(model)
        self.rows = 0

    def by_key(self, groups: Sequence[Group], *, pack_tokens: int) -> Iterator[tuple[int, torch.Tensor]]:
        for row in self.scorer.by_key(groups, pack_tokens=pack_tokens):
            self.rows += 1
            yield row


def fill(data: Sequence[TokenPair], model: Any, *, key: ReferenceKey = KEY, pack_tokens: int = 64) -> int:
    """What the reference stage does; the rows computed."""
    scorer = Counting(model)
    held = reference.read(key, data)
    for folder, _ in held.damaged_shards:
        store.remove(folder)
    what = reference.missing(held, data)
    if what.groups:
        assert reference.compute(what, key=key, scorer=scorer, pack_tokens=pack_tokens)
    return scorer.rows


def by_hand(model: Any, pair: TokenPair, ids: tuple[int, ...]) -> torch.Tensor:
    """One sequence, the model's own logits, log-softmax."""
    with torch.no_grad():
        logits = model(torch.tensor([[*pair.prompt_ids, *ids]])).logits[0].double()
    start = len(pair.prompt_ids)
    table = torch.log_softmax(logits[start - 1 : -1], -1)
    return table.gather(1, torch.tensor(ids)[:, None])[:, 0].float()


def test_rows_are_the_models_log_probabilities(model: Any) -> None:
    data = pairs(7)
    assert fill(data, model) == 14
    rows = reference.read(KEY, data).of_pairs(data)
    expected = [by_hand(model, p, ids) for p in data for ids in (p.chosen_ids, p.rejected_ids)]
    for row, truth in zip(rows, expected, strict=True):
        assert row.dtype == torch.float32
        torch.testing.assert_close(row, truth, rtol=1e-5, atol=1e-5)


def test_a_second_run_computes_nothing_and_reads_the_same_bits(model: Any) -> None:
    data = pairs(5)
    fill(data, model)
    first = reference.read(KEY, data).of_pairs(data)
    assert fill(data, model) == 0
    assert all(torch.equal(a, b) for a, b in zip(first, reference.read(KEY, data).of_pairs(data), strict=True))


def test_grown_data_computes_only_its_new_rows(model: Any) -> None:
    data = pairs(10)
    fill(data[:6], model)
    assert fill(data, model) == 8
    # a new rejected response to an old prompt costs that response alone, and order does not matter
    changed = dataclasses.replace(data[0], rejected_ids=(5, 6, 7))
    assert fill([*reversed(data), changed], model) == 1


def test_a_row_that_two_pairs_share_is_computed_once(model: Any) -> None:
    one = TokenPair("a", (1, 2, 3), (4, 5), (6, 7))
    two = TokenPair("b", (1, 2, 3), (4, 5), (8, 9))
    assert fill([one, two, dataclasses.replace(one, id="c")], model) == 3


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("weights", "x" * 64),
        ("adapter", "a" * 64),
        ("tokenizer", "u" * 64),
        ("truncation", (512, 256)),
        ("dtype", "bfloat16"),
        ("device", "cuda"),
        ("packed", False),
        ("quantized", "nf4"),
        ("numerics", reference.NUMERICS + 1),
    ],
)
def test_every_field_of_the_key_matters(model: Any, field: str, value: Any) -> None:
    data = pairs(2)
    fill(data, model)
    other = dataclasses.replace(KEY, **{field: value})
    assert other.digest != KEY.digest
    assert not reference.read(other, data).rows


def test_no_field_of_the_key_is_untested() -> None:
    tested = {"weights", "adapter", "tokenizer", "truncation", "dtype", "device", "packed", "quantized", "numerics"}
    assert {field.name for field in dataclasses.fields(ReferenceKey)} == tested


ids = st.lists(st.integers(0, 200_000), min_size=1, max_size=6).map(tuple)


@given(a=st.tuples(ids, ids), b=st.tuples(ids, ids))
@settings(max_examples=300, deadline=None)
def test_rows_are_named_by_their_ids_and_by_where_the_prompt_ends(a: Any, b: Any) -> None:
    assert (reference.row_digest(*a) == reference.row_digest(*b)) == (a == b)


def test_the_prompts_end_is_part_of_the_name() -> None:
    assert reference.row_digest((1, 2), (3, 4)) != reference.row_digest((1, 2, 3), (4,))


def shards() -> list[Path]:
    return sorted(KEY.folder.glob("shard-*"))


@pytest.mark.parametrize("harm", ["flip", "truncate", "delete", "zero"])
def test_a_damaged_shard_is_dropped_and_computed_again(model: Any, harm: str) -> None:
    old, new = pairs(4, seed=1), pairs(4, seed=2)
    fill(old, model)
    (spoiled,) = shards()
    fill([*old, *new], model)
    clean = reference.read(KEY, [*old, *new]).of_pairs([*old, *new])
    file = spoiled / "rows.safetensors"
    content = bytearray(file.read_bytes())
    match harm:
        case "flip":
            content[-3] ^= 4
            file.write_bytes(content)
        case "truncate":
            file.write_bytes(content[:-8])
        case "zero":
            file.write_bytes(bytes(len(content)))
        case _:
            file.unlink()
    held = reference.read(KEY, [*old, *new])
    assert [folder for folder, _ in held.damaged_shards] == [spoiled]
    assert "rows.safetensors" in held.damaged_shards[0][1]
    with pytest.raises(StoreError, match="missing"):
        held.of_pairs(old)
    assert len(held.of_pairs(new)) == 8
    assert fill([*old, *new], model) == 8
    mended = reference.read(KEY, [*old, *new])
    assert not mended.damaged_shards
    for a, b in zip(mended.of_pairs([*old, *new]), clean, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_a_shard_that_was_never_committed_is_no_row(model: Any) -> None:
    data = pairs(2)
    fill(data, model)
    (shard,) = shards()
    (shard / "manifest.json").unlink()
    assert not reference.read(KEY, data).rows


def test_a_committed_shard_with_a_hole_is_not_believed(model: Any) -> None:
    """A manifest can only say that the bytes are those that were written; NaN is refused all the same."""
    data = pairs(2)
    fill(data, model)
    (shard,) = shards()
    tensors = load_file(shard / "rows.safetensors")
    tensors["logps"] = tensors["logps"].clone()
    tensors["logps"][0] = torch.nan
    store.commit_folder(shard, lambda folder: save_file(tensors, folder / "rows.safetensors"))
    held = reference.read(KEY, data)
    assert not held.rows
    assert held.damaged_shards


def test_a_missing_row_is_an_error_not_a_zero(model: Any) -> None:
    data = pairs(3)
    fill(data[:2], model)
    with pytest.raises(StoreError) as caught:
        reference.read(KEY, data).of_pairs(data)
    assert "trimtab reference" in caught.value.remedy


def test_a_stop_keeps_what_was_computed(model: Any) -> None:
    data = pairs(12)
    asked = iter([False] * 5 + [True] * 100)
    scorer = Counting(model)
    what = reference.missing(reference.read(KEY, data), data)
    done = reference.compute(what, key=KEY, scorer=scorer, pack_tokens=40, should_stop=lambda: next(asked))
    assert not done
    assert len(reference.read(KEY, data).rows) == 5
    assert fill(data, model) == 24 - 5


def test_numbers_that_are_not_finite_are_never_stored(model: Any) -> None:
    class Broken(Counting):
        def by_key(self, groups: Sequence[Group], *, pack_tokens: int) -> Iterator[tuple[int, torch.Tensor]]:
            for index, row in super().by_key(groups, pack_tokens=pack_tokens):
                yield index, torch.full_like(row, torch.nan) if index == 2 else row

    data = pairs(3)
    what = reference.missing(reference.read(KEY, data), data)
    with pytest.raises(NumericsError, match=r"rows\.jsonl:2"):
        reference.compute(what, key=KEY, scorer=Broken(model), pack_tokens=10_000)
    assert reference.row_digest(data[1].prompt_ids, data[1].chosen_ids) not in reference.read(KEY, data).rows


def test_the_pack_budget_changes_rounding_only(model: Any) -> None:
    data = pairs(9)
    fill(data, model, pack_tokens=30)
    small = reference.read(KEY, data).of_pairs(data)
    other = dataclasses.replace(KEY, weights="y" * 64)
    fill(data, model, key=other, pack_tokens=5000)
    for a, b in zip(small, reference.read(other, data).of_pairs(data), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_reading_is_fast(model: Any) -> None:
    """20,000 rows of 100 tokens are read and verified in well under the 2 seconds of a second run."""
    import time

    rng = random.Random(0)  # noqa: S311  # test data
    data = [TokenPair(str(i), (i,), tuple(rng.choices(range(97), k=100)), (1,) * 100) for i in range(10_000)]
    what = reference.missing(reference.Reference({}), data)

    class Fake:
        def by_key(self, groups: Sequence[Group], *, pack_tokens: int) -> Iterator[tuple[int, torch.Tensor]]:
            assert pack_tokens == 2048
            for group in groups:
                yield from ((key, torch.zeros(100)) for key in group.keys)

    reference.compute(what, key=KEY, scorer=Fake(), pack_tokens=2048)
    start = time.perf_counter()
    held = reference.read(KEY, data)
    assert not reference.missing(held, data).groups
    assert time.perf_counter() - start < 2
