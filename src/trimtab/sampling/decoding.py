"""Batched decoding for any causal language model of transformers, with or without a PEFT adapter.

Prompts are sorted by length and decoded in batches that fit a token budget. Each batch is padded on the left, keeps a
KV cache, asks the model for the last row of logits only, and drops its finished rows from the cache, so that one
long answer costs one row and not a batch. Positions never leave the model's window.

Shape suffixes: R rows in the batch, T columns of the batch (left padding, prompt, answer), S decoding steps,
V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from trimtab.errors import ConfigError, DataError, ModelError, NumericsError
from trimtab.sampling.choosing import Choice, next_tokens
from trimtab.sampling.noise import uniforms
from trimtab.sampling.standing import decoding_mode, unwrapped

_ATTENTION_ONLY = frozenset({"full_attention", "sliding_attention", "chunked_attention"})
# Share of live rows at which finished ones leave the cache. Anything from 0.5 to 1 measured alike (tiny model, 1,024
# prompts); never dropping them took 1.2 to 2.5 times as long.
_COMPACT_BELOW = 0.9


@dataclass(frozen=True, slots=True)
class Sampled:
    """One answer: its ids without the stop token. `finished` is False when it was cut at a limit."""

    ids: tuple[int, ...]
    finished: bool


def sample(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    stop_ids: Collection[int],
    max_new_tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int | None = None,
    repetition_penalty: float = 1.0,
    seed: int = 0,
    streams: Sequence[int] | None = None,
    batch_tokens: int = 32_768,
    on_done: Callable[[int, Sampled], None] | None = None,
) -> list[Sampled]:
    """Continue every prompt until a stop id, `max_new_tokens`, or the end of the model's window; in input order.

    temperature, top_p, top_k, repetition_penalty: see `Choice`; temperature 0 is greedy and reads no noise.
    streams: which random stream each prompt reads, by default its index. What a prompt samples depends on (seed,
        stream) and not on the batch it sits in, up to rounding of the logits.
    batch_tokens: budget of a batch in KV-cache positions (rows × (longest prompt + new tokens)).
    on_done: called with (index of the prompt, answer) the moment an answer is complete, in order of completion.

    The model may be in training mode and may carry an attention implementation of its own; it is given back as it was.
    Raises ConfigError (settings), DataError (a prompt that is empty, too long or outside the vocabulary), ModelError
    (no KV cache), NumericsError (logits that are not finite).
    """
    choice = Choice(temperature=temperature, top_p=top_p, top_k=top_k, repetition_penalty=repetition_penalty)
    for name, value in (("max_new_tokens", max_new_tokens), ("batch_tokens", batch_tokens)):
        if value < 1:
            raise ConfigError(f"{name} = {value} cannot be used", remedy=f"{name} is at least 1")
    decoder = _Decoder(model, choice=choice, stop_ids=frozenset(stop_ids))
    _check_prompts(prompts, window=decoder.window, vocabulary=decoder.vocabulary)
    streams = range(len(prompts)) if streams is None else streams
    if len(streams) != len(prompts):
        raise ConfigError(
            f"{len(streams)} random streams for {len(prompts)} prompts", remedy="give one stream a prompt, or none"
        )
    requests = [
        _Request(index, tuple(prompt), min(max_new_tokens, decoder.window - len(prompt)), stream)
        for index, (prompt, stream) in enumerate(zip(prompts, streams, strict=True))
    ]
    answers: dict[int, Sampled] = {}

    def keep(index: int, answer: Sampled) -> None:
        answers[index] = answer
        if on_done is not None:
            on_done(index, answer)

    with decoding_mode(model):
        for batch in _batches(requests, batch_tokens=batch_tokens):
            decoder.run(batch, seed=seed, on_done=keep)
    return [answers[index] for index in range(len(prompts))]


@dataclass(frozen=True, slots=True)
class _Request:
    index: int
    prompt: tuple[int, ...]
    limit: int  # new tokens, at most
    stream: int


@dataclass(slots=True)
class _Row:
    request: _Request
    ids: list[int] = field(default_factory=list)
    done: bool = False


@dataclass(slots=True)
class _Batch:
    """What the cache holds: some rows of which are done and wait to be dropped."""

    rows: list[_Row]
    ids: Tensor  # [R, T]; left padding repeats the row's own first token: masked for attention, harmless to the penalty
    mask: Tensor  # [R, T]; 1 where a token is, and ahead of `width`, where one will be
    pad: Tensor  # [R]
    uniform: Tensor | None  # [R, S]
    cache: Any
    width: int  # columns filled so far

    def keep(self, rows: list[int]) -> None:
        """Keep these rows only, and cut the columns that are padding in all of them."""
        index_R = torch.tensor(rows, device=self.ids.device)
        self.rows = [self.rows[row] for row in rows]
        self.cache.reorder_cache(index_R)
        self.pad = self.pad[index_R]
        cut = int(self.pad.min()) if _croppable(self.cache) else 0
        if cut:
            for layer in self.cache.layers:
                layer.keys, layer.values = layer.keys[:, :, cut:], layer.values[:, :, cut:]
        self.ids, self.mask = self.ids[index_R, cut:], self.mask[index_R, cut:]
        self.pad, self.width = self.pad - cut, self.width - cut
        if self.uniform is not None:
            self.uniform = self.uniform[index_R]


class _Decoder:
    def __init__(self, model: Any, *, choice: Choice, stop_ids: frozenset[int]) -> None:
        base = unwrapped(model)
        config = base.config.get_text_config(decoder=True)
        if not getattr(base, "_supports_default_dynamic_cache", lambda: True)():
            raise ModelError(
                f"{type(base).__name__} keeps its state outside transformers' KV cache and cannot be decoded here",
                remedy="serve the model and sample through the endpoint, or choose an attention-based model",
            )
        self.model, self.config, self.choice, self.stop_ids = model, config, choice, stop_ids
        embeddings = base.get_input_embeddings().weight
        self.device, self.vocabulary = embeddings.device, int(embeddings.shape[0])
        self.window: int = getattr(config, "max_position_embeddings", None) or 2**31
        parameters = inspect.signature(base.forward).parameters
        self.last_row = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}

    def run(self, requests: Sequence[_Request], *, seed: int, on_done: Callable[[int, Sampled], None]) -> None:
        """Decode one batch to its end."""
        batch = self._start(requests, seed=seed)
        fresh = batch.width  # columns the cache has not seen: first the prompts, then one column a step
        step = 0
        while True:
            tokens_R = self._step(batch, fresh=fresh, step=step)
            for row, token in zip(batch.rows, tokens_R.tolist(), strict=True):
                if not row.done and self._take(row, token):
                    on_done(row.request.index, Sampled(tuple(row.ids), finished=token in self.stop_ids))
            live = [place for place, row in enumerate(batch.rows) if not row.done]
            if not live:
                return
            batch.ids[:, batch.width] = tokens_R
            batch.width += 1
            fresh, step = 1, step + 1
            # At the window's edge the longest rows have ended: without them the columns, and so the positions of all
            # rows that are still in the cache, move back inside.
            if len(live) <= _COMPACT_BELOW * len(batch.rows) or batch.width > self.window:
                batch.keep(live)

    def _take(self, row: _Row, token: int) -> bool:
        """Add the token to the row; True when that completes it."""
        if token not in self.stop_ids:
            row.ids.append(token)
        row.done = token in self.stop_ids or len(row.ids) == row.request.limit
        return row.done

    def _start(self, requests: Sequence[_Request], *, seed: int) -> _Batch:
        width = max(len(request.prompt) for request in requests)
        pads = [width - len(request.prompt) for request in requests]
        columns = width + max(request.limit for request in requests)
        ids_RT = torch.zeros(len(requests), columns, dtype=torch.long)
        for row, (request, pad) in enumerate(zip(requests, pads, strict=True)):
            ids_RT[row, :width] = torch.tensor([request.prompt[0]] * pad + list(request.prompt))
        pad_R = torch.tensor(pads)
        mask_RT = (torch.arange(columns) >= pad_R[:, None]).long()
        noise = None
        if not self.choice.greedy:
            n_steps = max(request.limit for request in requests)
            noise = torch.from_numpy(uniforms([request.stream for request in requests], seed=seed, n_steps=n_steps))
            noise = noise.float().to(self.device) if self.device.type == "mps" else noise.to(self.device)
        return _Batch(
            rows=[_Row(request) for request in requests],
            ids=ids_RT.to(self.device),
            mask=mask_RT.to(self.device),
            pad=pad_R.to(self.device),
            uniform=noise,
            cache=_new_cache(self.config),
            width=width,
        )

    def _step(self, batch: _Batch, *, fresh: int, step: int) -> Tensor:
        """One forward pass over the columns that the cache has not seen; the next token of every row."""
        columns = slice(batch.width - fresh, batch.width)
        positions_RT = torch.arange(columns.start, columns.stop, device=self.device) - batch.pad[:, None]
        logits_RV = self.model(
            input_ids=batch.ids[:, columns],
            attention_mask=batch.mask[:, : batch.width],
            position_ids=positions_RT.clamp(min=0),  # padding has no position
            past_key_values=batch.cache,
            use_cache=True,
            **self.last_row,
        ).logits[:, -1]
        finite_R = logits_RV.amax(-1).isfinite()  # NaN and +inf survive a maximum; -inf is a token that is ruled out
        if not bool(finite_R.all()):
            self._refuse(batch, finite_R.tolist())
        return next_tokens(
            logits_RV.float(),
            choice=self.choice,
            seen_RT=batch.ids[:, : batch.width],
            uniform_R=None if batch.uniform is None else batch.uniform[:, step],
        )

    def _refuse(self, batch: _Batch, finite: list[bool]) -> None:
        bad = [row.request.index for row, fine in zip(batch.rows, finite, strict=True) if not fine and not row.done]
        if bad:
            raise NumericsError(
                f"the model's logits are not finite for prompt {bad[0]} ({len(bad)} of {len(finite)} rows)",
                remedy="the weights have diverged or the dtype overflows: decode an earlier checkpoint, or in float32",
            )


def _check_prompts(prompts: Sequence[Sequence[int]], *, window: int, vocabulary: int) -> None:
    for index, prompt in enumerate(prompts):
        if not prompt:
            raise DataError(
                f"prompt {index} has no tokens", remedy="remove it, or start it with the model's first token"
            )
        if len(prompt) >= window:
            raise DataError(
                f"prompt {index} has {len(prompt)} tokens and leaves no room in the model's window of {window}",
                remedy="shorten the prompt, or leave it out",
            )
        if not 0 <= min(prompt) <= max(prompt) < vocabulary:
            raise DataError(
                f"prompt {index} holds a token id outside the model's vocabulary of {vocabulary}",
                remedy="use the tokenizer that belongs to this model",
            )


def _batches(requests: Sequence[_Request], *, batch_tokens: int) -> list[list[_Request]]:
    """Longest prompts first, so that a budget that does not fit in memory fails at once."""
    batches: list[list[_Request]] = []
    columns = 0
    for request in sorted(requests, key=lambda request: len(request.prompt), reverse=True):
        need = max(columns, len(request.prompt) + request.limit)
        if not batches or need * (len(batches[-1]) + 1) > batch_tokens:
            batches.append([])
            need = len(request.prompt) + request.limit
        columns = need
        batches[-1].append(request)
    return batches


def _new_cache(config: Any) -> Any:
    """An empty KV cache.

    Attention-only models get full-length layers, sliding windows included (the mask cuts the window), because
    those can be cropped on the left; others (convolution, recurrence) get the layers that their config asks for.
    """
    from transformers import DynamicCache

    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    plain = kinds <= _ATTENTION_ONLY and getattr(config, "kv_sharing_modes", None) is None
    return DynamicCache() if plain else DynamicCache(config=config)


def _croppable(cache: Any) -> bool:
    from transformers.cache_utils import DynamicLayer

    return all(type(layer) is DynamicLayer for layer in cache.layers)
