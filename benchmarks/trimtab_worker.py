"""trimtab's contender: a `step.Stepper` that takes the bench's orders."""

from __future__ import annotations

import argparse
import sys
from typing import Any

import trimtab  # noqa: F401  # before torch, as every command does: it says how OpenMP's threads wait
from worker import ceilings, memory, open_channel, orders, tell, timed
from workload import SHAPES, TokenIds, add_arguments, choose_fate, model_of, pairs_of


def main() -> None:
    told = _arguments()
    channel = open_channel()
    import torch

    torch.set_num_threads(told.threads)
    # all that is imported later, so that `before` is what the process holds without a model
    import transformers.models.qwen2.modeling_qwen2  # noqa: F401

    from step import Stepper

    before = memory("VmRSS")
    shape = SHAPES[told.shape]
    pairs = pairs_of(told)
    stepper = Stepper(shape, dtype=told.dtype, lora=told.lora, checkpointing=told.checkpointing, model=model_of(told))
    stepper.warm_up(pairs)
    pack_tokens = told.pack_tokens or stepper.pack_tokens(pairs)
    weights = sum(p.numel() for p in stepper.model.parameters())
    held = 4 * weights + 12 * stepper.trainable  # weights; gradients and two moments
    tell(channel, {"before": before, "held": held, "pack_tokens": pack_tokens})
    for order in orders():
        if order["do"] == "matmul":
            tell(channel, ceilings())
        else:
            tell(channel, _train(stepper, pairs, order, pack_tokens))


def _train(stepper: Any, pairs: list[TokenIds], order: dict[str, Any], pack_tokens: int) -> dict[str, Any]:
    """One timed optimizer step over all pairs."""
    fate = choose_fate(pairs, rate=order["rate"], side=order["side"], wrong=order["wrong"], held=order["held"])
    stepper.give_back()
    with timed() as took:
        result = stepper.step(pairs, fate, pack_tokens=pack_tokens, screening=order["screening"])
        answer = took()
    promoted = tuple(on and screened for on, screened in zip(fate.active_R, fate.screen_R, strict=True))
    return answer | {
        "active": fate.share(pairs, fate.active_R),
        "promoted": fate.share(pairs, promoted) if order["screening"] else 0.0,
        "held": fate.share(pairs, fate.held_R),
        "skipped": result.skipped_backward,
        "forward_tokens": result.forward_tokens,
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--dtype", default="float32", choices=("float32", "mixed"))
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--pack-tokens", type=int)
    parser.add_argument("--checkpointing", default="off", choices=("off", "selective", "on"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
