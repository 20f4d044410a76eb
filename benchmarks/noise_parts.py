"""Which roundings to bfloat16 make the noise of a response's log-probability: one kind at a time, all else in fp32.

    .venv/bin/python benchmarks/noise_parts.py --model SMOLLM2_FOLDER --pairs PAIRS_FOLDER/llamafactory-dpo-en-demo

The responses of `noise.py`. A linear layer's operand is rounded as a bfloat16 product would round it, its result as a
product that is handed on in bfloat16 would be. Prints one line a part.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from noise import compared, long_pairs

LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
QKV, OUT, GATE_UP, DOWN = LAYERS[:3], LAYERS[3:4], LAYERS[4:6], LAYERS[6:]
# name → (layers whose activations are rounded, whose weights are, whose results are)
PARTS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "both operands": (LAYERS, LAYERS, ()),
    "both operands and results": (LAYERS, LAYERS, LAYERS),
    "both operands but for q, k, v": (LAYERS[3:], LAYERS[3:], ()),
    "weights": ((), LAYERS, ()),
    "activations": (LAYERS, (), ()),
    "activations before q, k, v": (QKV, (), ()),
    "activations before o": (OUT, (), ()),
    "activations before gate, up": (GATE_UP, (), ()),
    "activations before down": (DOWN, (), ()),
    "results of q, k, v": ((), (), QKV),
    "results of o and down": ((), (), OUT + DOWN),
    "results of gate and up": ((), (), GATE_UP),
    "both operands of the head": (("lm_head",), ("lm_head",), ()),
}


def main() -> int:
    told = _arguments()
    from trimtab.engine import models

    pairs = long_pairs(told.model, told.pairs)
    model = models.load(str(told.model), dtype="float32", device="cpu", offline=True).model
    exact = logps(model, pairs, ((), (), ()))
    lengths = [len(row) for row in exact]
    print(f"{len(lengths)} responses of {sum(lengths) / len(lengths):.0f} tokens on average; nats")
    for name, part in list(PARTS.items())[told.skip :]:
        row = compared(logps(model, pairs, part), exact, lengths)
        print(
            f"{name:28} sd {row['sd']:.3f}  largest {row['largest']:.2f}  √tokens × a token's {row['expected']:.3f}",
            flush=True,
        )
    return 0


def logps(model: Any, pairs: list[Any], part: tuple[tuple[str, ...], ...]) -> list[Any]:
    """Of every response, one at a time, with this part rounded."""
    import torch
    from torch.nn.functional import linear
    from torch.overrides import TorchFunctionMode

    names = {id(m.weight): n.rpartition(".")[2] for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}

    class Rounded(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function is not linear:
                return function(*args, **(kwargs or {}))
            name = names[id(args[1])]
            operands = [
                x.bfloat16().float() if name in layers else x for x, layers in zip(args[:2], part[:2], strict=True)
            ]
            out = linear(*operands, *args[2:])
            return out.bfloat16().float() if name in part[2] else out

    rows = []
    for pair in pairs:
        for ids in (pair.chosen_ids, pair.rejected_ids):
            tokens, n = torch.tensor([[*pair.prompt_ids, *ids]]), len(ids)
            with torch.no_grad(), Rounded():
                scores = model(input_ids=tokens, use_cache=False, logits_to_keep=n + 1).logits[0, :-1].log_softmax(-1)
            rows.append(scores.gather(1, torch.tensor(ids)[:, None])[:, 0].double())
    return rows


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a transformers folder of SmolLM2-135M-Instruct")
    parser.add_argument("--pairs", type=Path, required=True, help="the folder of llamafactory-dpo-en-demo")
    parser.add_argument("--skip", type=int, default=0, help="go on after so many parts")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
