"""trimtab's side: the calls that one optimizer step of the train stage makes, on references that force the active rate.

A reference is set so far on one side of the policy that a response is deep in the dead zone of apo_hinge_zero, or
surely outside it. The coefficients are the objective's own; those inside come out exactly zero.
"""

from __future__ import annotations

import argparse
import math
import sys
from typing import Any

from worker import matmul_speed, memory, open_channel, orders, tell, timed
from workload import SHAPES, choose_active, make_pairs


def main() -> None:
    told = _arguments()
    channel = open_channel()
    import torch

    torch.set_num_threads(told.threads)
    # all that is imported later, so that `before` is what the process holds without a model
    import transformers.models.qwen2.modeling_qwen2  # noqa: F401

    from trimtab.engine import gradient, optim, scoring  # noqa: F401

    before = memory("VmRSS")
    side = Side(told)
    held = 16 * sum(p.numel() for p in side.model.parameters())  # weights, gradients, two moments
    tell(channel, {"before": before, "held": held, "pack_tokens": side.pack_tokens})
    for order in orders():
        tell(channel, {"matmul": matmul_speed()} if order["do"] == "matmul" else side.train(order))


class Side:
    """The model, its optimizer and the pairs."""

    def __init__(self, told: argparse.Namespace) -> None:
        import torch

        from trimtab import objectives
        from trimtab.engine import memory as needs
        from trimtab.engine.optim import AdamW
        from trimtab.engine.scoring import Scorer
        from trimtab.records import TokenPair

        shape = SHAPES[told.shape]
        self.vocabulary = shape.vocabulary
        self.model = shape.build()
        self.rows = make_pairs(told.pairs, lengths=told.lengths, vocabulary=shape.vocabulary)
        self.pairs = [TokenPair(f"pair {i}", *ids) for i, ids in enumerate(self.rows)]
        self.objective = objectives.make("apo_hinge_zero")
        self.pack_tokens = told.pack_tokens or needs.choose_pack_tokens(
            needs.Shape.of(self.model),
            dtype=torch.float32,
            device=torch.device("cpu"),
            longest_group=max(pair.n_tokens for pair in self.pairs),
        )
        self.optimizer = AdamW(self.model, weight_decay=0.0)
        self.scorer = Scorer(self.model)
        short = [TokenPair("short", p[:8], c[-8:], r[-8:]) for p, c, r in self.rows]
        self._step(short, [0.0] * 2 * len(short), screening=False)  # the self-check, the optimizer's state, the threads
        assert not self.scorer.reason, f"not packed: {self.scorer.reason}"

    def train(self, order: dict[str, Any]) -> dict[str, Any]:
        """One timed optimizer step over all pairs."""
        active = choose_active(self.rows, rate=order["rate"], side=order["side"])
        lengths = [len(ids) for pair in self.pairs for ids in (pair.chosen_ids, pair.rejected_ids)]
        reference = [self._reference(n, chosen=r % 2 == 0, active=active[r]) for r, n in enumerate(lengths)]
        with timed() as took:
            result = self._step(self.pairs, reference, screening=order["screening"])
            answer = took()
        assert result.active_R.tolist() == active, "the forced coefficients are not what was asked for"
        return answer | {
            "active": sum(n for n, on in zip(lengths, active, strict=True) if on) / sum(lengths),
            "skipped": result.skipped_backward,
            "forward_tokens": result.forward_tokens,
        }

    def _step(self, pairs: list[Any], reference: list[float], *, screening: bool) -> Any:
        import torch

        from trimtab.engine import gradient

        self.optimizer.zero_gradients()
        result = gradient.accumulate(
            self.scorer,
            pairs,
            objective=self.objective,
            reference_logps_R=torch.tensor(reference),
            pack_tokens=self.pack_tokens,
            screening=screening,
        )
        self.optimizer.clip(1.0)
        self.optimizer.step(learning_rate=1e-6)
        return result

    def _reference(self, n: int, *, chosen: bool, active: bool) -> float:
        """A fresh model gives each of `n` tokens about −ln V nats, give or take much less than 2."""
        beyond = self.objective.reach() + 2 * n
        return -n * math.log(self.vocabulary) + (beyond if chosen == active else -beyond)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", required=True)
    parser.add_argument("--lengths", required=True)
    parser.add_argument("--pairs", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--pack-tokens", type=int)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
