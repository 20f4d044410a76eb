"""TRL's side: `DPOTrainer.train()` itself, held at the start of each optimizer step until the bench orders it.

A step is the bench's pairs once, in batches of `--batch` with gradient accumulation, so that both sides make one
optimizer step. With a cached reference the log-probabilities are handed in instead of computed (a fresh
model's −ln V a token, nearly): TRL reads them from the batch either way.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import sys
import tempfile
from typing import Any

from worker import memory, open_channel, orders, tell, timed
from workload import SHAPES, TokenIds, add_arguments, as_text, model_of, pairs_of, tokenizer

STEPS = 64  # more than any bench asks for


def main() -> None:
    told = _arguments()
    channel = open_channel()
    os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    import torch
    from datasets import Dataset, disable_progress_bars
    from transformers import TrainerCallback
    from trl import DPOConfig, DPOTrainer

    disable_progress_bars()
    torch.set_num_threads(told.threads)
    shape = SHAPES[told.shape]
    before = memory("VmRSS") if told.device == "cpu" else 0
    model = model_of(told, device=told.device, dtype=told.dtype).train()
    pairs = pairs_of(told)
    short = [(p[:8], c[-8:], r[-8:]) for p, c, r in pairs]
    rows = [as_text(pair) for pair in short + pairs * STEPS]

    class CachedReference(DPOTrainer):
        def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:  # noqa: ARG002
            for side in ("chosen", "rejected"):
                fresh = [-len(ids) * math.log(shape.vocabulary) for ids in dataset[f"{side}_ids"]]
                dataset = dataset.add_column(f"ref_{side}_logps", fresh)
            return dataset

    class Turns(TrainerCallback):
        def __init__(self) -> None:
            self.orders = orders()
            self.running: Any = None
            self.took: Any = None

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            if state.global_step == 0:
                return  # short pairs, to warm up
            if state.global_step == 1:
                tell(channel, {"before": before, "held": _held(state_of, told)})
            if next(self.orders, None) is None:
                sys.exit(0)  # the bench is done; the trainer would go on
            self.running = timed(told.device)
            self.took = self.running.__enter__()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            if self.took is not None:
                answer = self.took()
                self.running.__exit__(None, None, None)
                tell(channel, answer)

    with tempfile.TemporaryDirectory() as folder:
        config = DPOConfig(
            output_dir=folder,
            use_cpu=told.device == "cpu",
            bf16=told.dtype == "bfloat16",
            per_device_train_batch_size=told.batch,
            gradient_accumulation_steps=len(pairs) // told.batch,
            train_sampling_strategy="sequential",
            max_steps=STEPS,
            loss_type=["apo_zero"],
            gradient_checkpointing=told.checkpointing,
            precompute_ref_log_probs=told.cached,
            max_length=2048,
            learning_rate=1e-6,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
        )
        trainer = (CachedReference if told.cached else DPOTrainer)(
            model=model,
            ref_model=None if told.cached or told.lora else copy.deepcopy(model),
            peft_config=lora() if told.lora else None,
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer(shape.vocabulary),
            callbacks=[Turns()],
        )
        state_of = trainer.model
        same_tokens(trainer.train_dataset, short + pairs)
        trainer.train()


def _held(model: Any, told: argparse.Namespace) -> int:
    """Bytes of weights, gradients, two moments; the frozen reference's weights where it is a second model."""
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    return weights * (1 if told.cached or told.lora else 2) + 3 * trained


def lora() -> Any:
    """As `step.LORA`."""
    from peft import LoraConfig

    return LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")


def same_tokens(dataset: Any, pairs: list[TokenIds]) -> None:
    for row, (prompt, chosen, rejected) in zip(dataset.select(range(len(pairs))), pairs, strict=True):
        same = (row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]) == (
            list(prompt),
            list(chosen),
            list(rejected),
        )
        assert same, "TRL's tokens are not the pairs' own"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--cached", action="store_true")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--lora", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
