"""From one row of logits to one token id. Pure tensors: no model, no random state.

Shape suffixes: R rows, V vocabulary, K candidates, B blocks of candidates, T tokens seen so far.
The order is the ecosystem's: repetition penalty, temperature, top-k, top-p, draw.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from trimtab.errors import ConfigError

_FIRST_LOOK = 256  # candidates read before the whole vocabulary is sorted: enough for nearly every nucleus
_BLOCK = 512  # candidates whose masses are summed before any is looked at: a fifth of the time of one long running sum


@dataclass(frozen=True, slots=True)
class Choice:
    """Which tokens may follow, the same for every row; the temperature is each row's own.

    top_p               keep the smallest set of most likely tokens whose probability reaches top_p
    top_k               keep exactly this many tokens before top_p is applied; None keeps all
    repetition_penalty  CTRL (arXiv 1909.05858, section 4.1): the logit of a token that was seen, in the prompt or in
                        the answer, is divided by it when positive and multiplied by it when negative
    """

    top_p: float = 1.0
    top_k: int | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        for name, holds, words in (
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("top_k", self.top_k is None or self.top_k >= 1, "at least 1, or left out"),
            ("repetition_penalty", 0 < self.repetition_penalty < float("inf"), "a positive number (1 = none)"),
        ):
            if not holds:
                raise ConfigError(f"{name} = {getattr(self, name)} cannot be used", remedy=f"{name} is {words}")


def next_tokens(
    logits_RV: Tensor,
    *,
    choice: Choice,
    temperature_R: Tensor | None,
    history_RT: Tensor,
    uniform_R: Tensor | None,
) -> Tensor:
    """The next token id of each row, shape [R].

    `temperature_R`: logits are divided by it; 0 takes the most likely token, and None is 0 in every row.
    `history_RT`: the ids of prompt and answer so far (repeats are harmless), read only with a repetition penalty.
    `uniform_R`: one number in [0, 1) a row; read only where the temperature is not 0.
    """
    logits_RV = penalise_repetition(logits_RV, history_RT=history_RT, penalty=choice.repetition_penalty)
    if temperature_R is None:
        return logits_RV.argmax(-1)
    assert uniform_R is not None
    is_sampled_R = temperature_R > 0
    if bool(is_sampled_R.all()):
        return _draw(logits_RV / temperature_R[:, None], choice=choice, uniform_R=uniform_R)
    tokens_R = logits_RV.argmax(-1)
    if bool(is_sampled_R.any()):
        tempered = logits_RV[is_sampled_R] / temperature_R[is_sampled_R, None]
        tokens_R[is_sampled_R] = _draw(tempered, choice=choice, uniform_R=uniform_R[is_sampled_R])
    return tokens_R


def _draw(logits_RV: Tensor, *, choice: Choice, uniform_R: Tensor) -> Tensor:
    ids_RK, mass_RK = candidates(logits_RV, top_k=choice.top_k, top_p=choice.top_p)
    slot_R = inverse_cdf(mass_RK, uniform_R=uniform_R)
    return slot_R if ids_RK is None else ids_RK.gather(1, slot_R[:, None]).squeeze(1)


def penalise_repetition(logits_RV: Tensor, *, history_RT: Tensor, penalty: float) -> Tensor:
    """Logits with the repetition penalty applied once to every token that was seen."""
    if penalty == 1.0:
        return logits_RV
    history_logits = logits_RV.gather(1, history_RT)
    return logits_RV.scatter(
        1, history_RT, torch.where(history_logits < 0, history_logits * penalty, history_logits / penalty)
    )


def candidates(logits_RV: Tensor, *, top_k: int | None, top_p: float) -> tuple[Tensor | None, Tensor]:
    """The tokens that may be drawn and their mass (not normalised; 0 = cut): ids_RK in vocabulary order, mass_RK.

    ids are None when K is the vocabulary itself. Vocabulary order, not order of probability, because two nearly
    equal tokens that change places through rounding would otherwise change which token a given number draws.
    """
    if top_k is None and top_p >= 1:
        return None, torch.softmax(logits_RV, -1)
    exact = _exact(logits_RV.device)
    n_tokens = logits_RV.shape[-1]
    logits_RK, ids_RK = logits_RV.topk(min(n_tokens, top_k or _FIRST_LOOK), dim=-1)
    mass_RK = _share(logits_RK, of=logits_RK if top_k else logits_RV, dtype=exact)
    if top_k is None and bool((mass_RK.sum(-1) < top_p).any()):
        logits_RK, ids_RK = logits_RV.sort(dim=-1, descending=True)
        mass_RK = _share(logits_RK, of=logits_RV, dtype=exact)
    before_RK = mass_RK.cumsum(-1).roll(1, dims=-1)  # mass of the more likely tokens
    before_RK[:, 0] = 0
    nucleus_RK = torch.where(before_RK < top_p, mass_RK, 0) if top_p < 1 else mass_RK
    ids_RK, order_RK = ids_RK.sort(dim=-1)
    return ids_RK, nucleus_RK.gather(1, order_RK)


def inverse_cdf(mass_RK: Tensor, *, uniform_R: Tensor) -> Tensor:
    """The slot in which each row's number falls when [0, 1) is shared out by mass; never a slot without mass.

    Masses may be in single precision; running sums are in double. Of many slots, the block is found first.
    """
    n_slots = mass_RK.shape[-1]
    if n_slots <= 2 * _BLOCK:
        return _fall(mass_RK, uniform_R)[0]
    blocks_RBK = pad(mass_RK, (0, -n_slots % _BLOCK)).view(len(mass_RK), -1, _BLOCK)
    block_R, remainder_R = _fall(blocks_RBK.sum(-1), uniform_R)
    inside_RK = blocks_RBK[torch.arange(len(blocks_RBK), device=mass_RK.device), block_R]
    return block_R * _BLOCK + _fall(inside_RK, remainder_R)[0]


def _fall(mass_RK: Tensor, uniform_R: Tensor) -> tuple[Tensor, Tensor]:
    """The slot of each row's number, and where in that slot it falls, as a number in [0, 1]."""
    exact_RK = mass_RK.to(_exact(mass_RK.device))
    cdf_RK = exact_RK.cumsum(-1)
    total_R1 = cdf_RK[:, -1:]
    target_R1 = uniform_R.to(exact_RK.dtype)[:, None] * total_R1
    last_R = (cdf_RK < total_R1).sum(-1)  # rounding must not carry a number past the last slot that has mass
    slot_R1 = torch.minimum((cdf_RK <= target_R1).sum(-1), last_R)[:, None]
    mass_R1 = exact_RK.gather(1, slot_R1)
    into_R1 = target_R1 - (cdf_RK.gather(1, slot_R1) - mass_R1)
    return slot_R1.squeeze(1), (into_R1 / mass_R1).clamp(0, 1).squeeze(1)


def _share(part_RK: Tensor, *, of: Tensor, dtype: torch.dtype) -> Tensor:
    return (part_RK.to(dtype) - of.logsumexp(-1, keepdim=True).to(dtype)).exp()


def _exact(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
