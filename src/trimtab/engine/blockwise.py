"""Causal attention as matrix products over blocks of queries, for processors on which those are much the faster way.

Torch's fused attention for CPUs takes its products from MKL; where `engine.matmul` has better ones, the plain algorithm
(scores, softmax, weighted sum; all three once more in the backward pass) takes half of its time. A block holds as many
queries as keep its scores in a core's cache; query heads that share keys are computed as one. Neither a mask nor any
score outlives its block.

Rows are aligned at the lower right: the last query sees the last key. Dims: L queries, S keys, A heads, G key heads,
D head width, Q rows of a block (its queries times the heads that share keys).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor

from trimtab.engine import matmul

SCORES = 1 << 18
"""Scores of one block: 1 MiB."""

WORTHWHILE = 1 << 23
"""Multiplications of a key head's scores from which this is the faster way."""


def suits(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether `attend` takes these and is likely the faster way."""
    return (
        query.device.type == "cpu"
        and query.dtype == torch.float32
        and query.shape[-1] == value.shape[-1]
        and len(query) == 1
        and query[0].numel() // key.shape[1] * key.shape[2] >= WORTHWHILE
        and matmul.in_use()
    )


def attend(query: Tensor, key: Tensor, value: Tensor, *, scale: float, window: int | None) -> Tensor:
    """Query [1, A, L, D], key and value [1, G, S, D] → [1, A, L, D]; `window` counts the row itself."""
    rows = (x[0].transpose(0, 1) for x in (query, key, value))
    out: Tensor = blockwise_attention(*rows, scale, window)
    return out.transpose(0, 1)[None]


@torch.library.custom_op("trimtab::blockwise_attention", mutates_args=())
def blockwise_attention(query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
    """Query [L, A, D], key and value [S, G, D] → [L, A, D]. One operation, so that activation checkpointing can keep
    its result and nothing of what it is made from."""
    out = torch.empty(query.shape, dtype=query.dtype)
    queries_per_key = query.shape[1] // key.shape[1]
    for head in range(key.shape[1]):
        heads = slice(head * queries_per_key, (head + 1) * queries_per_key)
        keys_SD, values_SD = key[:, head].contiguous(), value[:, head].contiguous()
        for queries, keys in _blocks(len(query), len(key), queries_per_key, window):
            query_QD = _rows(query[queries, heads] * scale)
            weights_QS = _weights(query_QD, keys_SD[keys], queries, window)
            out[queries, heads] = matmul.product(weights_QS, values_SD[keys].T).view(
                -1, queries_per_key, query.shape[2]
            )
    return out


def _backward(ctx: Any, grad_LAD: Tensor) -> tuple[Tensor | None, ...]:
    query, key, value = ctx.saved_tensors
    to_query = torch.empty(query.shape, dtype=query.dtype)
    # transposed, since that is how the products come out
    to_key_GDS, to_value_GDS = (torch.zeros(*key.shape[1:], len(key), dtype=key.dtype) for _ in range(2))
    queries_per_key = query.shape[1] // key.shape[1]
    for head in range(key.shape[1]):
        heads = slice(head * queries_per_key, (head + 1) * queries_per_key)
        keys_SD, values_SD = key[:, head].contiguous(), value[:, head].contiguous()
        for queries, keys in _blocks(len(query), len(key), queries_per_key, ctx.window):
            query_QD, grad_QD = _rows(query[queries, heads] * ctx.scale), _rows(grad_LAD[queries, heads])
            weights_QS = _weights(query_QD, keys_SD[keys], queries, ctx.window)
            to_value_GDS[head, :, keys] += matmul.product(grad_QD.T, weights_QS.T)
            to_weights_QS = matmul.product(grad_QD, values_SD[keys])
            to_scores_QS = torch._softmax_backward_data(to_weights_QS, weights_QS, -1, weights_QS.dtype)
            to_key_GDS[head, :, keys] += matmul.product(query_QD.T, to_scores_QS.T)
            back_QD = matmul.product(to_scores_QS, keys_SD[keys].T)
            to_query[queries, heads] = back_QD.view(-1, queries_per_key, query.shape[2])
    return to_query.mul_(ctx.scale), to_key_GDS.permute(2, 0, 1), to_value_GDS.permute(2, 0, 1), None, None


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001  # torch's signature
    query, key, value, ctx.scale, ctx.window = inputs
    ctx.save_for_backward(query, key, value)


blockwise_attention.register_autograd(_backward, setup_context=_setup)


def _blocks(n_queries: int, n_keys: int, queries_per_key: int, window: int | None) -> Iterator[tuple[slice, slice]]:
    """Queries of a block and the keys that any of them sees."""
    before = n_keys - n_queries
    rows = -(-n_queries // max(1, round(queries_per_key * n_queries * n_keys / SCORES)))
    for start in range(0, n_queries, rows):
        stop = min(start + rows, n_queries)
        yield slice(start, stop), slice(0 if window is None else max(0, before + start - window + 1), before + stop)


def _weights(query_QD: Tensor, key_SD: Tensor, queries: slice, window: int | None) -> Tensor:
    """Softmax over the keys that each query sees, [Q, S]."""
    n, n_keys = queries.stop - queries.start, len(key_SD)
    scores_QS = matmul.product(query_QD, key_SD)
    scores_LHS = scores_QS.view(n, -1, n_keys)
    scores_LHS[:, :, n_keys - n :] += _later(1 << (n - 1).bit_length())[:n, :n][:, None]
    if window is not None and n_keys > window:
        rows, columns = torch.arange(n)[:, None], torch.arange(n_keys)[None]
        scores_LHS.masked_fill_((n_keys - n + rows - columns >= window)[:, None], float("-inf"))
    return scores_QS.softmax(-1)


@cache
def _later(n: int) -> Tensor:
    """−inf above the diagonal, [n, n]."""
    return torch.full((n, n), float("-inf")).triu_(1)


def _rows(x_LHD: Tensor) -> Tensor:
    return x_LHD.reshape(-1, x_LHD.shape[2]).contiguous()
