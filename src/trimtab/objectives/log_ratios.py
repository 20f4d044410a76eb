"""What an objective sees: summed log-probs of P pairs under policy and reference, and how long the responses are.

Shape suffix: P pairs. Log-probs are in nats, lengths in tokens. Nothing here imports torch: values are built and
checked on the command line's fast path, and tensors bring their own methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class LogRatios:
    """Log-probs of the responses of P pairs (each [P], nats, summed over response tokens, fp32 or fp64).

    `chosen_lengths` and `rejected_lengths` ([P], tokens) count all response tokens, the end of turn included, whatever
    weights an `ld_alpha` gave them in the sums. An unpaired row has one response: the length of the absent one is 0,
    and so are its log-probs, as if it stood at the reference. `score_gaps` ([P], a judge's own unit, above 0) is how
    much higher the chosen response was scored; None where pairs have no scores. `chosen_log_weights` and
    `rejected_log_weights` ([P], nats a token, without gradient): mean over a response's tokens of ln p − ln Σ_v p_v²
    under the policy, p_v the probability of each token of the vocabulary there; None where nobody asked for them.
    """

    policy_chosen: Tensor
    policy_rejected: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor
    chosen_lengths: Tensor
    rejected_lengths: Tensor
    score_gaps: Tensor | None = None
    chosen_log_weights: Tensor | None = None
    rejected_log_weights: Tensor | None = None

    def __post_init__(self) -> None:
        logps = (self.policy_chosen, self.policy_rejected, self.reference_chosen, self.reference_rejected)
        shapes = {tuple(t.shape) for t in (*logps, self.chosen_lengths, self.rejected_lengths)}
        assert {len(shape) for shape in shapes} == {1}, f"every tensor is [P], got {sorted(shapes)}"
        assert len(shapes) == 1, f"P differs: {sorted(shapes)}"
        # A log-ratio is a small difference of large sums: two or three digits of bf16 would be all noise.
        assert all(t.is_floating_point() and t.element_size() >= 4 for t in logps), "log-probs are fp32 or fp64"

    @property
    def chosen(self) -> Tensor:
        """r_w, [P], nats: log-ratio of the chosen responses."""
        return self.policy_chosen - self.reference_chosen

    @property
    def rejected(self) -> Tensor:
        """r_l, [P], nats: log-ratio of the rejected responses."""
        return self.policy_rejected - self.reference_rejected

    def per_token(self) -> LogRatios:
        """The same pairs with every log-prob divided by the length of its response (nats a token)."""
        chosen, rejected = self.chosen_lengths.clamp_min(1), self.rejected_lengths.clamp_min(1)
        return LogRatios(
            policy_chosen=self.policy_chosen / chosen,
            policy_rejected=self.policy_rejected / rejected,
            reference_chosen=self.reference_chosen / chosen,
            reference_rejected=self.reference_rejected / rejected,
            chosen_lengths=self.chosen_lengths,
            rejected_lengths=self.rejected_lengths,
            score_gaps=self.score_gaps,
            chosen_log_weights=self.chosen_log_weights,
            rejected_log_weights=self.rejected_log_weights,
        )


def softplus(x: Tensor) -> Tensor:
    """ln(1 + e^x) with the gradient σ(x), finite for any finite x (torch's own needs torch)."""
    return x.logaddexp(x.new_zeros(()))


def sigmoid(x: Tensor) -> Tensor:
    """σ(x) whose gradient keeps its relative precision on both sides.

    torch's backward is y·(1 − y), which is exactly 0 once y rounds to 1 (x > 17 in fp32). A badly ranked response
    would then look inactive; here the gradient is e^−x until that underflows.
    """
    return (-softplus(-x)).exp()
