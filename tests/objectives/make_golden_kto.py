"""Golden numbers from TRL 1.16's KTOTrainer. Not run by the test suite; its output is committed.

In the environment of `make_golden.py`:

    OMP_NUM_THREADS=1 /tmp/venv-trl/bin/python tests/objectives/make_golden_kto.py \
        tests/objectives/golden_kto_trl_1_16.json

No formula is written here. For every case a real `KTOTrainer` is built by its own constructor; its collator makes the
batch, its `compute_ref_log_probs` gives the sums of both models, its `_compute_loss` the loss, and its own log the KL.
The mismatched completions are those of the row before, as its data set has them.
"""

from __future__ import annotations

import json
import pathlib
import sys
import tempfile
from typing import Any

import datasets
import torch
import trl
from make_golden import tiny_model, tiny_tokenizer

WORDS = [(3, 5, True), (6, 2, False), (4, 4, True), (1, 7, True), (8, 3, False), (5, 6, True)]
CASES: list[tuple[str, dict[str, float]]] = [
    ("kto", {"beta": 0.1}),
    ("kto", {"beta": 0.5, "desirable_weight": 0.7, "undesirable_weight": 1.6}),
    ("apo_zero_unpaired", {"beta": 0.1}),
    ("apo_zero_unpaired", {"beta": 0.3, "desirable_weight": 1.2, "undesirable_weight": 0.4}),
]


def rows() -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(5)

    def words(n: int) -> str:
        return "".join(f" w{i}" for i in torch.randint(2, 40, (n,), generator=generator).tolist())

    return [{"prompt": words(a), "completion": words(b), "label": label} for a, b, label in WORDS]


def measured(loss_type: str, settings: dict[str, float], seeds: tuple[int, int], folder: str) -> dict[str, Any]:
    config = trl.KTOConfig(
        output_dir=folder, loss_type=loss_type, bf16=False, use_cpu=True, report_to=[], gradient_checkpointing=False,
        per_device_train_batch_size=len(WORDS), train_sampling_strategy="sequential", **settings,
    )  # fmt: skip
    trainer = trl.KTOTrainer(
        model=tiny_model(seeds[0]), ref_model=tiny_model(seeds[1]), args=config,
        train_dataset=datasets.Dataset.from_list(rows()), processing_class=tiny_tokenizer(),
    )  # fmt: skip
    inputs = trainer.data_collator(list(trainer.train_dataset))
    trainer.model.train()  # its log is by mode; the models have no dropout
    loss = trainer._compute_loss(trainer.model, inputs, return_outputs=False).item()
    answer: dict[str, Any] = {"loss": loss, "labels": [bool(label) for label in inputs["label"]]}
    if loss_type == "kto":
        answer["kl"] = trainer._metrics["train"]["kl"][-1]
    for who, model in (("policy", trainer.model), ("reference", trainer.ref_model)):
        logps, mismatched = trainer.compute_ref_log_probs(model.eval(), inputs)
        answer[who] = logps.tolist()
        if mismatched is not None:
            answer[f"{who}_mismatched"] = mismatched.tolist()
    return answer


def main(target: str) -> None:
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        for loss_type, settings in CASES:
            for seeds in ((1, 2), (2, 1), (4, 3)):  # one way round the estimated KL is below 0
                case = {"objective": loss_type, "parameters": settings, "seeds": seeds}
                cases.append(case | measured(loss_type, settings, seeds, folder))
    golden = {"made_by": "tests/objectives/make_golden_kto.py", "trl": trl.__version__, "cases": cases}
    pathlib.Path(target).write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
