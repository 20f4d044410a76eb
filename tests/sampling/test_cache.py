"""Rows that leave and join a cache keep their keys and values, and what they never had is zero."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers.cache_utils import DynamicCache

from trimtab.sampling.cache import Part, RoomyLayer, concatenate, joinable


def filled(rows: int, columns: int, *, mark: float, layers: int = 2) -> Any:
    """A cache whose entry in layer l, row r, column c is mark + 100 l + 10 r + c, and its negative among the values."""
    cache = DynamicCache()
    for layer in range(layers):
        keys = mark + 100 * layer + 10 * torch.arange(rows)[:, None, None, None] + torch.arange(columns)[:, None]
        keys = keys.expand(rows, 3, columns, 4).float().contiguous()
        cache.update(keys, -keys, layer)
    return cache


def test_rows_of_two_caches_end_at_the_same_column() -> None:
    """Rows 2 and 0 of one with 5 columns, cropped to 4, above row 1 of one with 2 columns, padded to 4."""
    old, new = filled(3, 5, mark=1000), filled(2, 2, mark=5000)
    cache = concatenate([Part(old, [0, 2]), Part(new, [1])], n_columns=4, room=3)
    assert cache.get_seq_length() == 4
    for layer in (0, 1):
        keys, values = cache.layers[layer].keys, cache.layers[layer].values
        assert keys.shape == values.shape == (3, 3, 4, 4)
        assert keys[0, 2, :, 3].tolist() == [1001 + 100 * layer + column for column in range(4)]
        assert keys[1, 0, :, 0].tolist() == [1021 + 100 * layer + column for column in range(4)]
        assert keys[2, 1, :, 1].tolist() == [0, 0, 5010 + 100 * layer, 5011 + 100 * layer]
        assert torch.equal(values, -keys)
    assert old.layers[0].keys is None, "old and new are never in memory together"


def test_new_columns_are_written_in_place_until_the_room_is_used_up() -> None:
    cache = concatenate([Part(filled(2, 3, mark=0), [0, 1])], n_columns=3, room=2)
    start = cache.layers[0].keys.data_ptr()
    for step in range(2):
        fresh = torch.full((2, 3, 1, 4), 7.0 + step)
        keys, values = cache.update(fresh, -fresh, 0)
        assert keys.shape[2] == 4 + step
        assert keys[:, :, -1].unique().tolist() == [7.0 + step]
        assert torch.equal(values, -keys)
        assert keys.data_ptr() == start
    assert keys[1, 0, :, 0].tolist() == [10, 11, 12, 7, 8]
    with pytest.raises(AssertionError, match="no room"):
        cache.update(fresh, fresh, 0)


def test_a_layer_that_reads_anothers_keys_stays_empty() -> None:
    cache = filled(2, 3, mark=0)
    cache.layers.append(type(cache.layers[0])())
    again = concatenate([Part(cache, [1])], n_columns=3, room=1)
    assert [type(layer) is RoomyLayer for layer in again.layers] == [True, True, False]
    assert not again.layers[2].is_initialized


def test_only_models_of_pure_attention_are_joined() -> None:
    from transformers import Gemma3TextConfig, Lfm2Config, Qwen2Config

    assert joinable(Qwen2Config())
    assert joinable(Gemma3TextConfig())
    assert not joinable(Lfm2Config(num_hidden_layers=2, layer_types=["conv", "full_attention"]))
