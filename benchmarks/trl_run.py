"""TRL's side of `time_to_accuracy.py`: one DPO run on real weights; what it says on stdout are its training seconds.

Seconds are those between the start and the end of each optimizer step (collating left out), and apart from them those
of the reference's log-probabilities, which TRL computes before. At `--looks` the model is saved, which is not timed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from trl_worker import lora, same_tokens
from worker import open_channel, tell
from workload import as_text, tokenizer


def main() -> None:
    told = _arguments()
    channel = open_channel()
    os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    import torch
    from datasets import Dataset, disable_progress_bars
    from transformers import AutoModelForCausalLM, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    disable_progress_bars()
    torch.set_num_threads(told.threads)
    model = AutoModelForCausalLM.from_pretrained(told.model, dtype=torch.float32).train()
    pairs = [tuple(map(tuple, pair)) for pair in json.loads(told.ids.read_text(encoding="utf-8"))]
    eos = pairs[0][1][-1]  # the end of a turn
    took: dict[str, Any] = {"reference": 0.0, "steps": []}

    class TimedReference(DPOTrainer):
        def _precompute_ref_logps(self, *arguments: Any) -> Any:
            start = time.perf_counter()
            found = super()._precompute_ref_logps(*arguments)
            took["reference"] += time.perf_counter() - start
            return found

    class Looks(TrainerCallback):
        start = 0.0

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            self.start = time.perf_counter()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            took["steps"].append(time.perf_counter() - self.start)
            if state.global_step in told.looks:
                trainer.model.save_pretrained(told.out / f"step-{state.global_step}")

    with tempfile.TemporaryDirectory() as folder:
        config = DPOConfig(
            output_dir=folder,
            use_cpu=True,
            bf16=False,
            per_device_train_batch_size=1,
            gradient_accumulation_steps=told.batch,
            gradient_checkpointing=False,
            num_train_epochs=1,
            learning_rate=told.rate,
            loss_type=["sigmoid"],
            precompute_ref_log_probs=True,
            max_length=2048,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
        )
        trainer = TimedReference(
            model=model,
            peft_config=lora() if told.lora else None,
            args=config,
            train_dataset=Dataset.from_list([as_text(pair) for pair in pairs]),
            processing_class=tokenizer(model.config.vocab_size, eos=eos, pad=0),
            callbacks=[Looks()],
        )
        same_tokens(trainer.train_dataset, pairs)
        trainer.train()
    tell(channel, took)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--ids", type=Path, required=True, help="token ids of prompt, chosen and rejected")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--looks", type=int, nargs="+", required=True, help="steps after which the model is saved")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--lora", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
