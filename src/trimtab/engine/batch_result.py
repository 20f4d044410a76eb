"""What one optimizer batch did, response by response. Dims: P pairs, R = 2P responses (chosen 2p, rejected 2p + 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trimtab.objectives import LogRatios
from trimtab.records import TokenPair


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What one optimizer batch did. Tensors are fp32 on the CPU; the gradient is in the model's parameters.

    loss_P: loss of each pair; logps_R: log p of each response (nats, unweighted); log_ratios: what the objective saw
    (with LD-DPO's weights); coefficients_R: d(mean loss)/d(logps); first_R: the first response with the same prompt and
    tokens, which is computed for all of them. Bool, [R]: backward_R, the backward pass was run;
    screened_R, looked at without gradient first; promoted_R, found active by that; stale_R, nothing was computed and
    the sums are those handed in. Tokens are counted as computed: forward_tokens over all forward passes, padding
    included.
    """

    loss_P: Tensor
    logps_R: Tensor
    coefficients_R: Tensor
    log_ratios: LogRatios
    lengths_R: Tensor
    first_R: Tensor
    backward_R: Tensor
    screened_R: Tensor
    promoted_R: Tensor
    stale_R: Tensor
    forward_tokens: int

    @property
    def present_R(self) -> Tensor:
        """False for the side that an unpaired row does not have."""
        return self.lengths_R > 0

    @property
    def response_tokens(self) -> int:
        return int(self.lengths_R.sum())

    @property
    def loss(self) -> float:
        """Mean over the pairs of this call (nats, or the objective's own unit)."""
        return float(self.loss_P.double().mean())

    @property
    def active_R(self) -> Tensor:
        """True where the coefficient is not exactly zero."""
        return self.coefficients_R != 0

    @property
    def skipped_backward(self) -> float:
        """Share of distinct responses' tokens whose backward pass was not run."""
        return 1.0 - self._share(self.backward_R)

    @property
    def skipped_forward(self) -> float:
        """Share of distinct responses' tokens that were not computed at all."""
        return 1.0 - self._share(~self.stale_R)

    @property
    def promoted(self) -> float:
        """Share of distinct responses' tokens that were screened, found active, and computed once more."""
        return self._share(self.promoted_R)

    def _share(self, mask_R: Tensor) -> float:
        is_first_R = self.first_R == torch.arange(len(self.first_R))
        lengths_R = self.lengths_R[is_first_R]
        return int(lengths_R[any_of_equal(mask_R, self.first_R)[is_first_R]].sum()) / int(lengths_R.sum())


def first_of_equal(pairs: Sequence[TokenPair]) -> Tensor:
    """Of each response of these pairs [2P] the first with the same prompt and tokens; an absent one is its own."""
    responses = [(pair.prompt_ids, ids) for pair in pairs for ids in (pair.chosen_ids, pair.rejected_ids)]
    first = {response: key for key, response in reversed(list(enumerate(responses)))}
    return torch.tensor([first[of] if of[1] else key for key, of in enumerate(responses)], dtype=torch.long)


def any_of_equal(mask_R: Tensor, first_R: Tensor) -> Tensor:
    """Whether it is so of any response with these very tokens. `first_R`: the first such response of each."""
    return torch.zeros_like(mask_R).index_put_((first_R,), mask_R, accumulate=True)[first_R]
