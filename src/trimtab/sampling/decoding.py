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
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from trimtab.errors import ConfigError, ModelError, NumericsError
from trimtab.sampling.argument_checks import check_prompts, per_prompt, same_length
from trimtab.sampling.choosing import Choice, next_tokens
from trimtab.sampling.decoding_mode import decoding_mode, transformers_model_of
from trimtab.sampling.noise import uniforms

# Share of live rows at which finished ones leave. Anything from 0.5 to 1 measured alike (tiny model, 1,024 prompts);
# never dropping them took 1.2 to 2.5 times as long.
_COMPACT_BELOW = 0.8
_JOIN_FROM = 1 / 5  # share of the batch for which prompts wait before they join: one forward pass for several of them
_PROMPT_TOKENS = 4096  # of prompts that are read in one forward pass, padding included
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
    on_step: Callable[[int], None] | None = None,
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
    on_step: called after every forward pass with the number of tokens that it gave.
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
        on_step=on_step or (lambda _n_tokens: None),
        on_token=on_token or (lambda _index, _token: None),
    )
    check_prompts(prompts, window=decoder.window, vocabulary=decoder.vocabulary)
    requests = [
        _Request(index, tuple(prompt), min(limit, decoder.window - len(prompt)), heat, (seed, stream))
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


@dataclass(frozen=True, slots=True)
class _Request:
    index: int
    prompt: tuple[int, ...]
    limit: int  # new tokens, at most
    temperature: float
    noise: tuple[int, int]  # seed, stream

    @property
    def columns(self) -> int:
        return len(self.prompt) + self.limit


@dataclass(slots=True)
class _Row:
    request: _Request
    noise: NDArray[Any] | None  # a number a step; None when greedy
    ids: list[int] = field(default_factory=list)
    done: bool = False

    @classmethod
    def of(cls, request: _Request) -> _Row:
        if not request.temperature:
            return cls(request, None)
        seed, stream = request.noise
        return cls(request, uniforms([stream], seed=seed, n_steps=request.limit)[0])

    @property
    def draw(self) -> float:
        return 0.0 if self.noise is None or self.done else float(self.noise[len(self.ids)])

    @property
    def n_tokens(self) -> int:
        return len(self.request.prompt) + len(self.ids)


@dataclass(slots=True)
class _Batch:
    """Rows that run together, some of which are done and wait to be dropped.

    The last column of `ids` up to `width` holds what the model has not read yet: its cache is a column behind.
    """

    rows: list[_Row]
    ids: Tensor  # [R, T]; left padding repeats the row's own first token: masked for attention, harmless to the penalty
    mask: Tensor  # [R, T]; 1 where a token is, and ahead of `width`, where one will be
    pad: Tensor  # [R]
    temperature: Tensor | None  # [R]; None when all rows are greedy
    cache: Any
    width: int  # columns filled so far

    @classmethod
    def of(cls, rows: list[_Row], *, cache: Any, width: int, room: int, device: torch.device) -> _Batch:
        """Rows with what they have said so far, ending at column `width`."""
        pads = [width - row.n_tokens for row in rows]
        ids_RT = torch.zeros(len(rows), width + room, dtype=torch.long)
        for number, (row, pad) in enumerate(zip(rows, pads, strict=True)):
            prompt = row.request.prompt
            ids_RT[number, :width] = torch.tensor([prompt[0]] * pad + [*prompt, *row.ids])
        pad_R = torch.tensor(pads)
        mask_RT = (torch.arange(width + room) >= pad_R[:, None]).long()
        heat = [row.request.temperature for row in rows]
        temperature = torch.tensor(heat, dtype=torch.float32, device=device) if any(heat) else None
        return cls(rows, ids_RT.to(device), mask_RT.to(device), pad_R.to(device), temperature, cache, width)

    @property
    def live(self) -> list[int]:
        return [number for number, row in enumerate(self.rows) if not row.done]

    @property
    def room(self) -> int:
        return self.ids.shape[1] - self.width

    def draws(self) -> Tensor | None:
        """One number in [0, 1) a row, for its next token."""
        if self.temperature is None:
            return None
        exact = torch.float32 if self.ids.device.type == "mps" else torch.float64
        return torch.tensor([row.draw for row in self.rows], dtype=exact, device=self.ids.device)


class _Decoder:
    def __init__(
        self,
        model: Any,
        *,
        choice: Choice,
        stop_ids: frozenset[int],
        on_done: Callable[[int, Sampled], None],
        on_step: Callable[[int], None],
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

    def run(self, requests: Sequence[_Request], *, batch_tokens: int) -> dict[int, Sampled]:
        """Decode all of them; longest prompts first, so that a budget that does not fit in memory fails at once."""
        from trimtab.sampling import cache

        joinable = cache.joinable(self.config)
        queue = deque(sorted(requests, key=lambda request: len(request.prompt), reverse=True))
        answers: dict[int, Sampled] = {}
        batch: _Batch | None = None
        while queue or batch:
            batch = self._refill(batch, queue, answers, batch_tokens=batch_tokens, joinable=joinable)
            if batch is not None:
                self._step(batch, answers)
        return answers

    def _refill(
        self,
        batch: _Batch | None,
        queue: deque[_Request],
        answers: dict[int, Sampled],
        *,
        batch_tokens: int,
        joinable: bool,
    ) -> _Batch | None:
        """The batch for the next step: without the rows that have ended, with the requests that now fit beside it."""
        live_rows = [batch.rows[number] for number in batch.live] if batch else []
        joiners = _choose_joiners(queue, live_rows, batch_tokens=batch_tokens) if joinable or not live_rows else []
        for _ in joiners:
            queue.popleft()
        if batch and not joiners and not self._wastes_rows(batch, len(live_rows)):
            return batch
        at_once = min(_PROMPT_TOKENS, batch_tokens) if joinable else 2**63  # what cannot be joined is read in one pass
        parts = [batch] if batch and live_rows else []
        parts += [self._start(group, answers) for group in _groups(joiners, at_most=at_once)]
        return self._join(parts, joinable=joinable)

    def _wastes_rows(self, batch: _Batch, n_live: int) -> bool:
        """Whether rows must be moved before the next step.

        At the window's edge the longest rows have ended: without them the columns, and so the positions of all rows
        that are still in the cache, move back inside.
        """
        return n_live <= _COMPACT_BELOW * len(batch.rows) or batch.width > self.window or not batch.room

    def _join(self, parts: Sequence[_Batch], *, joinable: bool) -> _Batch | None:
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
        return _Batch.of(rows, cache=joint_cache, width=width, room=room, device=self.device)

    def _start(self, requests: Sequence[_Request], answers: dict[int, Sampled]) -> _Batch:
        """Prompts that the model has read, each with its first token."""
        from trimtab.sampling import cache

        width = max(len(request.prompt) for request in requests)
        batch = _Batch.of(
            [_Row.of(request) for request in requests],
            cache=cache.empty(self.config),
            width=width,
            room=1,
            device=self.device,
        )
        self._step(batch, answers, fresh=width)
        return batch

    def _step(self, batch: _Batch, answers: dict[int, Sampled], *, fresh: int = 1) -> None:
        """One forward pass over the last `fresh` columns, and the next token of every row."""
        tokens_R = self._next(batch, fresh=fresh)
        batch.ids[:, batch.width] = tokens_R
        batch.width += 1
        live = batch.live
        tokens = tokens_R.tolist()
        for number in live:
            self._take(batch.rows[number], tokens[number], answers)
        self.on_step(len(live))

    def _take(self, row: _Row, token: int, answers: dict[int, Sampled]) -> None:
        """Add the token to the row, which that may complete."""
        if token not in self.stop_ids:
            row.ids.append(token)
            self.on_token(row.request.index, token)
        row.done = token in self.stop_ids or len(row.ids) == row.request.limit
        if row.done:
            answer = Sampled(tuple(row.ids), finished=token in self.stop_ids)
            answers[row.request.index] = answer
            self.on_done(row.request.index, answer)

    def _next(self, batch: _Batch, *, fresh: int) -> Tensor:
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
            _refuse(batch, finite_R.tolist())
        return next_tokens(
            logits_RV.float(),
            choice=self.choice,
            temperature_R=batch.temperature,
            history_RT=batch.ids[:, : batch.width],
            uniform_R=batch.draws(),
        )


def _choose_joiners(queue: Collection[_Request], live_rows: Sequence[_Row], *, batch_tokens: int) -> list[_Request]:
    """The next requests that fit beside the rows that run, if they are enough to be worth a forward pass."""
    widest = max((row.request.columns for row in live_rows), default=0)
    joiners: list[_Request] = []
    for request in queue:
        widest = max(widest, request.columns)
        n_rows = len(live_rows) + len(joiners) + 1
        if n_rows * widest > batch_tokens and n_rows > 1:
            break
        joiners.append(request)
    enough = len(joiners) == len(queue) or len(joiners) >= _JOIN_FROM * (len(live_rows) + len(joiners))
    return joiners if enough else []


def _groups(requests: Sequence[_Request], *, at_most: int) -> list[list[_Request]]:
    """Requests, longest first, in groups whose prompts take `at_most` tokens with their padding (or one prompt)."""
    groups: list[list[_Request]] = []
    for request in requests:
        if not groups or len(groups[-1][0].prompt) * (len(groups[-1]) + 1) > at_most:
            groups.append([])
        groups[-1].append(request)
    return groups


def _refuse(batch: _Batch, finite: Sequence[bool]) -> None:
    bad = [row.request.index for row, fine in zip(batch.rows, finite, strict=True) if not fine and not row.done]
    if bad:
        raise NumericsError(
            f"the model's logits are not finite for prompt {bad[0]} ({len(bad)} of {len(finite)} rows)",
            remedy="the weights have diverged or the dtype overflows: decode an earlier checkpoint, or in float32",
        )
