"""From one row of logits to one token id. Pure tensors: no model, no random state.

Shape suffixes: R rows, V vocabulary, K candidates, T tokens seen so far.
The order is the ecosystem's: repetition penalty, temperature, top-k, top-p, draw.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trimtab.errors import ConfigError

_FIRST_LOOK = 256  # candidates read before the whole vocabulary is sorted: enough for nearly every nucleus


@dataclass(frozen=True, slots=True)
class Choice:
    """How the next token is chosen from the logits.

    temperature         0 takes the most likely token; otherwise logits are divided by it
    top_p               keep the smallest set of most likely tokens whose probability reaches top_p
    top_k               keep exactly this many tokens before top_p is applied; None keeps all
    repetition_penalty  CTRL (arXiv 1909.05858, section 4.1): the logit of a token that was seen, in the prompt or in
                        the answer, is divided by it when positive and multiplied by it when negative
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        for name, holds, words in (
            ("temperature", 0 <= self.temperature < float("inf"), "0 (greedy) or a positive number"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("top_k", self.top_k is None or self.top_k >= 1, "at least 1, or left out"),
            ("repetition_penalty", 0 < self.repetition_penalty < float("inf"), "a positive number (1 = none)"),
        ):
            if not holds:
                raise ConfigError(f"{name} = {getattr(self, name)} cannot be used", remedy=f"{name} is {words}")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0


def next_tokens(logits_RV: Tensor, *, choice: Choice, seen_RT: Tensor, uniform_R: Tensor | None) -> Tensor:
    """The next token id of each row, shape [R].

    `seen_RT`: the ids of prompt and answer so far (repeats are harmless), read only when there is a repetition penalty.
    `uniform_R`: one number in [0, 1) a row; read only when not greedy.
    """
    logits_RV = penalised(logits_RV, seen_RT=seen_RT, penalty=choice.repetition_penalty)
    if choice.greedy:
        return logits_RV.argmax(-1)
    assert uniform_R is not None
    ids_RK, mass_RK = candidates(logits_RV / choice.temperature, top_k=choice.top_k, top_p=choice.top_p)
    slot_R = inverse_cdf(mass_RK, uniform_R=uniform_R)
    return slot_R if ids_RK is None else ids_RK.gather(1, slot_R[:, None]).squeeze(1)


def penalised(logits_RV: Tensor, *, seen_RT: Tensor, penalty: float) -> Tensor:
    """Logits with the repetition penalty applied once to every token that was seen."""
    if penalty == 1.0:
        return logits_RV
    seen = logits_RV.gather(1, seen_RT)
    return logits_RV.scatter(1, seen_RT, torch.where(seen < 0, seen * penalty, seen / penalty))


def candidates(logits_RV: Tensor, *, top_k: int | None, top_p: float) -> tuple[Tensor | None, Tensor]:
    """The tokens that may be drawn and their mass (not normalised; 0 = cut): ids_RK in vocabulary order, mass_RK.

    ids are None when K is the vocabulary itself. Vocabulary order, not order of probability, because two nearly
    equal tokens that change places through rounding would otherwise change which token a given number draws.
    """
    exact = _exact(logits_RV.device)
    if top_k is None and top_p >= 1:
        return None, torch.softmax(logits_RV, -1, dtype=exact)
    n_tokens = logits_RV.shape[-1]
    logits_RK, ids_RK = logits_RV.topk(min(n_tokens, top_k or _FIRST_LOOK), dim=-1)
    mass_RK = _share(logits_RK, of=logits_RK if top_k else logits_RV, dtype=exact)
    if top_k is None and bool((mass_RK.sum(-1) < top_p).any()):
        logits_RK, ids_RK = logits_RV.sort(dim=-1, descending=True)
        mass_RK = _share(logits_RK, of=logits_RV, dtype=exact)
    before_RK = mass_RK.cumsum(-1).roll(1, dims=-1)  # mass of the more likely tokens
    before_RK[:, 0] = 0
    kept_RK = torch.where(before_RK < top_p, mass_RK, 0) if top_p < 1 else mass_RK
    ids_RK, order_RK = ids_RK.sort(dim=-1)
    return ids_RK, kept_RK.gather(1, order_RK)


def inverse_cdf(mass_RK: Tensor, *, uniform_R: Tensor) -> Tensor:
    """The slot in which each row's number falls when [0, 1) is shared out by mass; never a slot without mass."""
    cdf_RK = mass_RK.cumsum(-1)
    total_R1 = cdf_RK[:, -1:]
    target_R1 = uniform_R.to(mass_RK.dtype)[:, None] * total_R1
    last_R = (cdf_RK < total_R1).sum(-1)  # rounding must not carry a number past the last slot that has mass
    return torch.minimum((cdf_RK <= target_R1).sum(-1), last_R)


def _share(part_RK: Tensor, *, of: Tensor, dtype: torch.dtype) -> Tensor:
    return (part_RK.to(dtype) - of.logsumexp(-1, keepdim=True).to(dtype)).exp()


def _exact(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
