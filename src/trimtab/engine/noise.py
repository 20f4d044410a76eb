"""How well a log-probability is known: the noise of the arithmetic, measured on the model at hand.

The scorer's self-check computes a few responses in the precision of the run and once more in fp32, in another layout.
Rounding errors of tokens are nearly independent, so a response's grows with the square root of its length, and one
number says it all: nats a square root of tokens.

Two layouts in one precision would say too little: as long as policy and reference are the same model, most roundings
come out the same in both. They part as soon as the policy has moved, and a log-ratio then has the noise of two numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trimtab.engine.out_of_memory import is_out_of_memory

SURE = 6.0
"""Standard deviations that noise does not reach; a wrong template, tokenizer or weight is hundreds of them away."""


@dataclass(frozen=True, slots=True)
class Noise:
    """`per_root_token`: standard deviation of a response's log-probability over the root of its tokens, nats."""

    per_root_token: float

    @classmethod
    def between(cls, truth_N: Tensor, logps_N: Tensor, lengths: Sequence[int]) -> Noise:
        """Of the same responses' tokens, exact and as they are computed (nats); `lengths` are the responses' in order.

        The larger of what tokens and what responses say: the latter are few, but errors that go together show in them
        alone.
        """
        gap_N = logps_N.double() - truth_N.double()
        by_token = float(gap_N.square().mean().sqrt())
        sums = [float(part.sum()) / math.sqrt(len(part)) for part in torch.split(gap_N, list(lengths))]
        return cls(max(by_token, math.sqrt(sum(x * x for x in sums) / len(sums))))

    def of_log_ratio(self, tokens: float) -> float:
        """Standard deviation of the log-ratio of a response of that many tokens, nats: two log-probabilities."""
        return self.per_root_token * math.sqrt(2 * tokens)


def in_fp32(model: nn.Module, compute: Callable[[], Tensor], *, otherwise: Tensor) -> Tensor:
    """What `compute` gives while the bfloat16 weights of `model` are fp32; `otherwise` where memory does not hold them
    thrice. What is measured against that, the same precision in another layout, understates the noise."""
    try:
        with widened(model):
            return compute()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return otherwise


@contextmanager
def widened(model: nn.Module) -> Iterator[None]:
    """Within, the bfloat16 weights of `model` are the same numbers in fp32, so that products and sums are exact."""
    narrow = [(p, p.data) for p in model.parameters() if p.dtype == torch.bfloat16]
    try:
        for parameter, data in narrow:
            parameter.data = data.float()
        yield
    finally:
        for parameter, data in narrow:
            parameter.data = data


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far log-probabilities of one token may differ (nats): the worst token and the mean over tokens."""

    worst: float
    mean: float

    def exceeded_by(self, logps_N: Tensor, truth_N: Tensor) -> bool:
        gap_N = (logps_N - truth_N).abs()
        return not bool((gap_N.max() <= self.worst) & (gap_N.mean() <= self.mean))  # NaN exceeds everything


# Rounding alone: fp32 families reach 2e-5 at most, bf16 ones a few hundredths; mixed-up neighbours cost far more.
ROUNDING = {
    torch.float64: Tolerance(1e-6, 1e-7),
    torch.float32: Tolerance(5e-4, 1e-4),
    torch.float16: Tolerance(0.1, 0.02),
    torch.bfloat16: Tolerance(0.5, 0.05),
}
