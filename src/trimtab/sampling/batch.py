"""Prompts that wait, and the rows of a batch that grows a column at a time.

Shape suffixes: R rows in the batch, T columns of the batch (left padding, prompt, answer).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from trimtab.sampling.noise import uniforms


@dataclass(frozen=True, slots=True)
class Request:
    index: int
    prompt: tuple[int, ...]
    limit: int  # new tokens, at most
    temperature: float
    noise: tuple[int, int]  # seed, stream

    @property
    def columns(self) -> int:
        return len(self.prompt) + self.limit


@dataclass(slots=True)
class Row:
    request: Request
    noise: NDArray[Any] | None  # a number a step; None when greedy
    ids: list[int] = field(default_factory=list)
    done: bool = False

    @classmethod
    def of(cls, request: Request) -> Row:
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
class Batch:
    """Rows that run together, some of which are done and wait to be dropped.

    The last column of `ids` up to `width` holds what the model has not read yet: its cache is a column behind.
    """

    rows: list[Row]
    ids: Tensor  # [R, T]; left padding repeats the row's own first token: masked for attention, harmless to the penalty
    mask: Tensor  # [R, T]; 1 where a token is, and ahead of `width`, where one will be
    pad: Tensor  # [R]
    temperature: Tensor | None  # [R]; None when all rows are greedy
    cache: Any
    width: int  # columns filled so far

    @classmethod
    def of(cls, rows: list[Row], *, cache: Any, width: int, room: int, device: torch.device) -> Batch:
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
