"""Continuous batched decoding for any causal language model of transformers, with or without a PEFT adapter.

Prompts wait, longest first, for room in a token budget. As answers end, their rows leave the batch and waiting prompts
join it, so that one long answer costs one row and holds up nobody. Prompts are padded on the left, and the model is
asked for the last row of logits only. Positions never leave the model's window. Models whose memory is more than keys
and values (convolution, recurrence) are decoded a batch after the other.

Shape suffixes: R rows in the batch, T columns of the batch (left padding, prompt, answer), V vocabulary.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trimtab.errors import ConfigError, ModelError, NumericsError
from trimtab.sampling.argument_checks import check_prompts, per_prompt, same_length
from trimtab.sampling.batch import Batch, Request, Row
from trimtab.sampling.choosing import Choice, next_tokens
from trimtab.sampling.decoding_mode import decoding_mode, transformers_model_of

# Share of live rows at which finished ones leave. Anything from 0.5 to 1 measured alike (tiny model, 1,024 prompts);
# never dropping them took 1.2 to 2.5 times as long.
_COMPACT_BELOW = 0.8
_JOIN_FROM = 1 / 5  # share of the batch for which prompts wait before they join: one forward pass for several of them
_PROMPT_TOKENS = 4096  # of prompts that are read in one forward pass, padding included
_PASS_FROM = 512  # tokens from which a pass is at full speed, so that much shorter prompts better wait for the next
_PADDED_FROM = 3 / 4  # of the longest prompt's length
_PREFIX_FROM = 8  # tokens that all prompts begin with, from which they are read apart
_ROOM = 128  # columns ahead


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
    max_new_tokens: int | Sequence[int],
    temperature: float | Sequence[float] = 1.0,
    top_p: float = 1.0,
    top_k: int | None = None,
    repetition_penalty: float = 1.0,
    seed: int = 0,
    streams: Sequence[int] | None = None,
    batch_tokens: int = 32_768,
    on_done: Callable[[int, Sampled], None] | None = None,
    on_step: Callable[[int, int], None] | None = None,
    on_token: Callable[[int, int], None] | None = None,
) -> list[Sampled]:
    """Continue every prompt until a stop id, `max_new_tokens`, or the end of the model's window; in input order.

    max_new_tokens, temperature: one number, or one a prompt; temperature 0 is greedy and reads no noise.
    top_p, top_k, repetition_penalty: see `Choice`.
    streams: which random stream each prompt reads, by default its index. What a prompt samples depends on (seed,
        stream) and not on the batch it sits in, up to rounding of the logits.
    batch_tokens: budget of the batch in KV-cache positions (rows × (longest prompt + new tokens)); up to 128 columns of
        room come on top.
    on_done: called with (index of the prompt, answer) the moment an answer is complete, in order of completion.
    on_step: called after every forward pass with the number of tokens that it gave, and of prompts' that it read.
    on_token: called with (index of the prompt, id) for each token of an answer as it is chosen, but for the stop token.
        What any of the three raises ends the work.

    The model may be in training mode and may carry an attention implementation of its own; it is given back as it was.
    Raises ConfigError (settings), DataError (a prompt that is empty, too long or outside the vocabulary), ModelError
    (no KV cache), NumericsError (logits that are not finite).
    """
    choice = Choice(top_p=top_p, top_k=top_k, repetition_penalty=repetition_penalty)
    if batch_tokens < 1:
        raise ConfigError(f"batch_tokens = {batch_tokens} cannot be used", remedy="batch_tokens is at least 1")
    decoder = _Decoder(
        model,
        choice=choice,
        stop_ids=frozenset(stop_ids),
        on_done=on_done or (lambda _index, _answer: None),
        on_step=on_step or (lambda _n_given, _n_read: None),
        on_token=on_token or (lambda _index, _token: None),
    )
    check_prompts(prompts, window=decoder.window, vocabulary=decoder.vocabulary)
    requests = [
        Request(index, tuple(prompt), min(limit, decoder.window - len(prompt)), heat, (seed, stream))
        for index, (prompt, limit, heat, stream) in enumerate(
            zip(
                prompts,
                per_prompt(max_new_tokens, prompts, "max_new_tokens", minimum=1, words="at least 1"),
                per_prompt(temperature, prompts, "temperature", minimum=0, words="0 (greedy) or a positive number"),
                range(len(prompts)) if streams is None else same_length(streams, prompts, "streams"),
                strict=True,
            )
        )
    ]
    with decoding_mode(model):
        answers = decoder.run(requests, batch_tokens=batch_tokens)
    return [answers[index] for index in range(len(prompts))]


class _Decoder:
    def __init__(
        self,
        model: Any,
        *,
        choice: Choice,
        stop_ids: frozenset[int],
        on_done: Callable[[int, Sampled], None],
        on_step: Callable[[int, int], None],
        on_token: Callable[[int, int], None],
    ) -> None:
        base = transformers_model_of(model)
        config = base.config.get_text_config(decoder=True)
        if not getattr(base, "_supports_default_dynamic_cache", lambda: True)():
            raise ModelError(
                f"{type(base).__name__} keeps its state outside transformers' KV cache and cannot be decoded here",
                remedy="serve the model and sample through the endpoint, or choose an attention-based model",
            )
        self.model, self.config, self.choice, self.stop_ids = model, config, choice, stop_ids
        self.on_done, self.on_step, self.on_token = on_done, on_step, on_token
        embeddings = base.get_input_embeddings().weight
        self.device, self.vocabulary = embeddings.device, int(embeddings.shape[0])
        self.window: int = getattr(config, "max_position_embeddings", None) or 2**31
        parameters = inspect.signature(base.forward).parameters
        self.last_row = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}
        self.forward: Callable[..., Tensor] = self._models_own
        self.prefix: Any = None  # the cache of what all prompts begin with

    def _models_own(self, ids_RC: Tensor, *, mask_RT: Tensor, positions_RC: Tensor, cache: Any) -> Tensor:
        logits_RV: Tensor = self.model(
            input_ids=ids_RC,
            attention_mask=mask_RT,
            position_ids=positions_RC,
            past_key_values=cache,
            use_cache=True,
            **self.last_row,
        ).logits[:, -1]
        return logits_RV

    def run(self, requests: Sequence[Request], *, batch_tokens: int) -> dict[int, Sampled]:
        """Decode all of them; longest prompts first, so that a budget that does not fit in memory fails at once."""
        from trimtab.sampling import cache
        from trimtab.sampling.llama_pass import llama_pass

        self.forward = llama_pass(self.model) or self._models_own
        self.prefix = self._read_prefix(requests) if cache.joinable(self.config) else None
        joinable = cache.joinable(self.config)
        queue = deque(sorted(requests, key=lambda request: len(request.prompt), reverse=True))
        answers: dict[int, Sampled] = {}
        batch: Batch | None = None
        while queue or batch:
            batch = self._refill(batch, queue, answers, batch_tokens=batch_tokens, joinable=joinable)
            if batch is not None:
                self._step(batch, answers)
        return answers

    def _read_prefix(self, requests: Sequence[Request]) -> Any:
        """The cache of what all prompts begin with (a system prompt), read once; None where it is not worth a pass."""
        from trimtab.sampling import cache

        common = _common_beginning([request.prompt[:-1] for request in requests])  # a row has a column to read
        if len(requests) < 2 or len(common) < _PREFIX_FROM:
            return None
        ids = torch.tensor([common], device=self.device)
        prefix, positions = cache.empty(self.config), torch.arange(len(common), device=self.device)[None]
        self.forward(ids, mask_RT=torch.ones_like(ids), positions_RC=positions, cache=prefix)
        return prefix

    def _refill(
        self,
        batch: Batch | None,
        queue: deque[Request],
        answers: dict[int, Sampled],
        *,
        batch_tokens: int,
        joinable: bool,
    ) -> Batch | None:
        """The batch for the next step: without the rows that have ended, with the requests that now fit beside it."""
        live_rows = [batch.rows[number] for number in batch.live] if batch else []
        joiners = _choose_joiners(queue, live_rows, batch_tokens=batch_tokens) if joinable or not live_rows else []
        for _ in joiners:
            queue.popleft()
        if batch and not joiners and not self._wastes_rows(batch, len(live_rows)):
            return batch
        groups = _groups(joiners, at_most=min(_PROMPT_TOKENS, batch_tokens)) if joinable else [joiners] * bool(joiners)
        parts = [batch] if batch and live_rows else []
        parts += [self._start(group, answers) for group in groups]
        return self._join(parts, joinable=joinable)

    def _wastes_rows(self, batch: Batch, n_live: int) -> bool:
        """Whether rows must be moved before the next step.

        At the window's edge the longest rows have ended: without them the columns, and so the positions of all rows
        that are still in the cache, move back inside.
        """
        return n_live <= _COMPACT_BELOW * len(batch.rows) or batch.width > self.window or not batch.room

    def _join(self, parts: Sequence[Batch], *, joinable: bool) -> Batch | None:
        """The live rows of all parts in one batch; None when there are none."""
        from trimtab.sampling import cache

        parts = [part for part in parts if part.live]
        rows = [part.rows[number] for part in parts for number in part.live]
        if not rows:
            return None
        room = min(_ROOM, max(row.request.limit - len(row.ids) for row in rows))
        if joinable:
            width = max(row.n_tokens for row in rows)
            joint_cache = cache.concatenate(
                [cache.Part(part.cache, part.live) for part in parts], n_columns=width - 1, room=room
            )
        else:  # its columns cannot be cropped
            (part,) = parts
            width, joint_cache = part.width, part.cache
            joint_cache.reorder_cache(torch.tensor(part.live, device=self.device))
        return Batch.of(rows, cache=joint_cache, width=width, room=room, device=self.device)

    def _start(self, requests: Sequence[Request], answers: dict[int, Sampled]) -> Batch:
        """Prompts that the model has read, each with its first token."""
        from trimtab.sampling import cache

        width = max(len(request.prompt) for request in requests)
        n_known = self.prefix.get_seq_length() if self.prefix is not None else 0
        if self.prefix is None:
            start_cache = cache.empty(self.config)
        else:
            pads = [width - len(request.prompt) for request in requests]
            start_cache = cache.beginning(self.prefix, pads, room=width - n_known)
        rows = [Row.of(request) for request in requests]
        batch = Batch.of(rows, cache=start_cache, width=width, room=1, device=self.device)
        self._step(batch, answers, fresh=width - n_known, n_read=sum(len(request.prompt) for request in requests))
        return batch

    def _step(self, batch: Batch, answers: dict[int, Sampled], *, fresh: int = 1, n_read: int = 0) -> None:
        """One forward pass over the last `fresh` columns, `n_read` tokens of prompts, and every row's next token."""
        tokens_R = self._next(batch, fresh=fresh)
        batch.ids[:, batch.width] = tokens_R
        batch.width += 1
        live = batch.live
        tokens = tokens_R.tolist()
        for number in live:
            self._take(batch.rows[number], tokens[number], answers)
        self.on_step(len(live), n_read)

    def _take(self, row: Row, token: int, answers: dict[int, Sampled]) -> None:
        """Add the token to the row, which that may complete."""
        if token not in self.stop_ids:
            row.ids.append(token)
            self.on_token(row.request.index, token)
        row.done = token in self.stop_ids or len(row.ids) == row.request.limit
        if row.done:
            answer = Sampled(tuple(row.ids), finished=token in self.stop_ids)
            answers[row.request.index] = answer
            self.on_done(row.request.index, answer)

    def _next(self, batch: Batch, *, fresh: int) -> Tensor:
        columns = slice(batch.width - fresh, batch.width)
        positions_RT = torch.arange(columns.start, columns.stop, device=self.device) - batch.pad[:, None]
        logits_RV = self.forward(
            batch.ids[:, columns],
            mask_RT=batch.mask[:, : batch.width],
            positions_RC=positions_RT.clamp(min=0),  # padding has no position
            cache=batch.cache,
        )
        finite_R = logits_RV.amax(-1).isfinite()  # NaN and +inf survive a maximum; -inf is a token that is ruled out
        if not bool(finite_R.all()):
            _refuse(batch, finite_R.tolist())
        return next_tokens(
            logits_RV.float(),
            choice=self.choice,
            temperature_R=batch.temperature,
            history_RT=batch.ids[:, : batch.width],
            uniform_R=batch.draws(),
        )


def _choose_joiners(queue: Collection[Request], live_rows: Sequence[Row], *, batch_tokens: int) -> list[Request]:
    """The next requests that fit beside the rows that run, if they are enough to be worth a forward pass."""
    widest = max((row.request.columns for row in live_rows), default=0)
    joiners: list[Request] = []
    for request in queue:
        widest = max(widest, request.columns)
        n_rows = len(live_rows) + len(joiners) + 1
        if n_rows * widest > batch_tokens and n_rows > 1:
            break
        joiners.append(request)
    enough = len(joiners) == len(queue) or len(joiners) >= _JOIN_FROM * (len(live_rows) + len(joiners))
    return joiners if enough else []


def _common_beginning(prompts: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    first, last = min(prompts, default=()), max(prompts, default=())
    n_common = next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), None)
    return first[:n_common] if n_common is not None else min(first, last, key=len)


def _groups(requests: Sequence[Request], *, at_most: int) -> list[list[Request]]:
    """Requests, longest first, in groups whose prompts take `at_most` tokens with their padding (or one prompt).

    Padding costs what tokens cost, so a group that is worth a pass takes no prompt that would be much of it.
    """
    groups: list[list[Request]] = []
    for request in requests:
        longest, n_rows = (len(groups[-1][0].prompt), len(groups[-1])) if groups else (0, 0)
        is_short = len(request.prompt) < _PADDED_FROM * longest and longest * n_rows >= _PASS_FROM
        if not groups or is_short or longest * (n_rows + 1) > at_most:
            groups.append([])
        groups[-1].append(request)
    return groups


def _refuse(batch: Batch, finite: Sequence[bool]) -> None:
    bad = [row.request.index for row, fine in zip(batch.rows, finite, strict=True) if not fine and not row.done]
    if bad:
        raise NumericsError(
            f"the model's logits are not finite for prompt {bad[0]} ({len(bad)} of {len(finite)} rows)",
            remedy="the weights have diverged or the dtype overflows: decode an earlier checkpoint, or in float32",
        )
