"""A KV cache that rows leave and join while it runs.

transformers' own cache is copied whole for every token. Here the layers have room for a number of tokens to come, which
are written in place; only when rows leave or join, or when the room is used up, are the rows that stay copied.

Shape suffixes: R rows, T columns. Rows end at the same column; a shorter one has padding on its left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

_ATTENTION_ONLY = frozenset({"full_attention", "sliding_attention", "chunked_attention"})


class RoomyLayer(DynamicLayer):  # type: ignore[misc]  # transformers is not typed
    """Keys and values of one layer: the first `n_columns` columns of two buffers."""

    def __init__(self, keys: Tensor, values: Tensor, *, n_columns: int) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self._room = (keys, values)
        self._show(n_columns)

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        *args: Any,  # noqa: ARG002  # transformers' signature
        **kwargs: Any,  # noqa: ARG002  # as above
    ) -> tuple[Tensor, Tensor]:
        """Write the new columns behind the old ones; all columns so far."""
        at = self.keys.shape[-2]
        self._show(at + key_states.shape[-2])
        self.keys[:, :, at:], self.values[:, :, at:] = key_states, value_states
        return self.keys, self.values

    def _show(self, n_columns: int) -> None:
        assert n_columns <= self._room[0].shape[-2], "the cache has no room left"
        self.keys, self.values = (buffer[:, :, :n_columns] for buffer in self._room)


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of a cache, which is emptied when they are taken."""

    cache: Any
    rows: Sequence[int]


def joinable(config: Any) -> bool:
    """Whether all that a model remembers is keys and values, column by column: only then can rows join and be cropped.

    Sliding windows are no hindrance: their layers are kept at full length, and the mask cuts the window.
    """
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    return kinds <= _ATTENTION_ONLY and getattr(config, "kv_sharing_modes", None) is None


def empty(config: Any) -> Any:
    """A cache for a first forward pass: full-length layers where rows are to join, else what the model asks for."""
    return DynamicCache() if joinable(config) else DynamicCache(config=config)


def beginning(prefix: Any, pads: Sequence[int], *, room: int) -> Any:
    """A cache of rows that begin with the one row of `prefix`, behind their padding, with room for `room` more columns.

    All rows have the prefix's P columns, so a row with padding has its beginning there, and the rest is to be read.
    """
    cache = DynamicCache()
    for layer in prefix.layers:
        keys, values = (_behind(pads, row, room) for row in (layer.keys, layer.values))
        cache.layers.append(RoomyLayer(keys, values, n_columns=layer.keys.shape[2]))
    return cache


def _behind(pads: Sequence[int], row: Tensor, room: int) -> Tensor:
    _, n_heads, n_columns, dim = row.shape
    buffer = row.new_empty(len(pads), n_heads, n_columns + room, dim)
    buffer[:, :, :n_columns] = 0  # as in `_stack`
    for number, pad in enumerate(pads):
        if pad < n_columns:
            buffer[number, :, pad:n_columns] = row[0, :, : n_columns - pad]
    return buffer


def concatenate(parts: Sequence[Part], *, n_columns: int, room: int) -> Any:
    """The rows of the parts, in order, in one cache of `n_columns` columns, with room for `room` more.

    Columns are taken from the right; those that a part does not have are zeros, to be masked.
    """
    cache = DynamicCache()
    for number, layer in enumerate(parts[0].cache.layers):
        if not layer.is_initialized:  # it reads another layer's keys
            cache.layers.append(DynamicLayer())
            continue
        layers = [part.cache.layers[number] for part in parts]
        keys = _stack([(layer.keys, part.rows) for layer, part in zip(layers, parts, strict=True)], n_columns, room)
        values = _stack([(layer.values, part.rows) for layer, part in zip(layers, parts, strict=True)], n_columns, room)
        for old_layer in layers:
            old_layer.reset()  # layer by layer, so that old and new are never in memory together
        cache.layers.append(RoomyLayer(keys, values, n_columns=n_columns))
    return cache


def _stack(pieces: Sequence[tuple[Tensor, Sequence[int]]], n_columns: int, room: int) -> Tensor:
    first = pieces[0][0]
    shape = (sum(len(rows) for _, rows in pieces), first.shape[1], n_columns + room, first.shape[3])
    buffer, at = first.new_empty(shape), 0
    for old, rows in pieces:
        n_rows = min(old.shape[2], n_columns)
        into = buffer[at : at + len(rows)]
        into[:, :, : n_columns - n_rows] = 0  # whatever lay in this memory, a masked NaN would still be a NaN
        into[:, :, n_columns - n_rows : n_columns] = _rows(old, rows)[:, :, old.shape[2] - n_rows :]
        at += len(rows)
    return buffer


def _rows(old: Tensor, rows: Sequence[int]) -> Tensor:
    if list(rows) == list(range(len(old))):
        return old
    return old.index_select(0, torch.tensor(rows, device=old.device))
