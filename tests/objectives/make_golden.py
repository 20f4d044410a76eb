"""Golden numbers from TRL 1.16's own loss code. Not run by the test suite; its output is committed.

TRL is no dependency of trimtab, so this runs in a virtual environment of its own:

    python3 -m venv /tmp/venv-trl
    /tmp/venv-trl/bin/pip install torch==2.13.0 "trl==1.16.*" "transformers==5.23.0"
    OMP_NUM_THREADS=1 /tmp/venv-trl/bin/python tests/objectives/make_golden.py tests/objectives/golden_trl_1_16.json

No formula is written here. For every case a real `DPOTrainer` is built by its own constructor with that case's
`DPOConfig`, and its `_compute_loss` is called and differentiated. Two kinds of batches go in:

- "model": two tiny Qwen2 models with random weights are policy and reference, nothing is replaced. TRL's
  `compute_ref_log_probs` gives the summed log-probs of both. fp32.
- "forced": policy and reference are stand-ins that return given per-token log-probs, so that log-ratios reach far into
  every dead zone and past every target. fp64.

Written for each case: the batch's mean loss, which is all that TRL computes; for forced batches also its derivative by
the log-probs, and the loss of each pair given alone (a batch of one: the mean is its own loss).
"""

from __future__ import annotations

import json
import math
import pathlib
import sys
import tempfile
import types
from typing import Any

import datasets
import tokenizers
import torch
import transformers
import trl

VOCABULARY = 40

# loss_type of TRL, trimtab's name, and parameters under TRL's names and trimtab's.
CASES: list[tuple[list[str], str, dict[str, float], dict[str, Any]]] = [
    (["sigmoid"], "dpo", {"beta": 0.1}, {"beta": 0.1}),
    (["sigmoid"], "dpo", {"beta": 0.5}, {"beta": 0.5}),
    # TRL's default loss does not read its label_smoothing: the number is that of plain DPO.
    (["sigmoid"], "dpo", {"beta": 0.1, "label_smoothing": 0.2}, {"beta": 0.1}),
    (["hinge"], "dpo_hinge", {"beta": 0.1}, {"beta": 0.1, "margin": 1.0}),
    (["ipo"], "ipo", {"beta": 0.1}, {"beta": 0.1}),
    (["ipo"], "ipo", {"beta": 2.0}, {"beta": 2.0}),
    (["exo_pair"], "exo_pair", {"beta": 0.1, "label_smoothing": 1e-3}, {"beta": 0.1, "label_smoothing": 1e-3}),
    (["exo_pair"], "exo_pair", {"beta": 0.3, "label_smoothing": 0.2}, {"beta": 0.3, "label_smoothing": 0.2}),
    (["nca_pair"], "nca_pair", {"beta": 0.1}, {"beta": 0.1}),
    (["robust"], "robust", {"beta": 0.1, "label_smoothing": 0.1}, {"beta": 0.1, "label_smoothing": 0.1}),
    (["robust"], "robust", {"beta": 0.1, "label_smoothing": 0.0}, {"beta": 0.1, "label_smoothing": 0.0}),
    (["bco_pair"], "bco_pair", {"beta": 0.1}, {"beta": 0.1}),
    (["sppo_hard"], "sppo_hard", {"beta": 0.1}, {"beta": 0.1}),
    (["aot"], "aot", {"beta": 0.1}, {"beta": 0.1}),
    (["aot"], "aot", {"beta": 0.1, "label_smoothing": 0.2}, {"beta": 0.1, "label_smoothing": 0.2}),
    (["aot_unpaired"], "aot_unpaired", {"beta": 0.1}, {"beta": 0.1}),
    (["aot_unpaired"], "aot_unpaired", {"beta": 0.3, "label_smoothing": 0.1}, {"beta": 0.3, "label_smoothing": 0.1}),
    (["apo_zero"], "apo_zero", {"beta": 0.1}, {"beta": 0.1}),
    (["apo_zero"], "apo_zero", {"beta": 0.5}, {"beta": 0.5}),
    (["apo_down"], "apo_down", {"beta": 0.1}, {"beta": 0.1}),
    (["discopop"], "discopop", {"beta": 0.1}, {"beta": 0.1}),
    (["discopop"], "discopop", {"beta": 0.1, "discopop_tau": 0.5}, {"beta": 0.1, "temperature": 0.5}),
    (["sft"], "sft", {"beta": 0.1}, {}),
    (["sigmoid_norm"], "sigmoid_norm", {"beta": 0.1}, {"beta": 0.1}),
    (["sigmoid_norm"], "sigmoid_norm", {"beta": 5.0}, {"beta": 5.0}),
    # Modifiers.
    (["sigmoid_norm"], "dpo", {"beta": 5.0}, {"beta": 5.0, "length_normalize": True}),
    (["sigmoid"], "dpo", {"beta": 0.1, "ld_alpha": 0.5}, {"beta": 0.1, "ld_alpha": 0.5}),
    (["sigmoid"], "dpo", {"beta": 0.1, "ld_alpha": 0.0}, {"beta": 0.1, "ld_alpha": 0.0}),
    (["apo_zero"], "apo_zero", {"beta": 0.1, "ld_alpha": 0.3}, {"beta": 0.1, "ld_alpha": 0.3}),
    (["ipo"], "ipo", {"beta": 0.5, "ld_alpha": 0.5}, {"beta": 0.5, "ld_alpha": 0.5}),
    (["sigmoid", "sft"], "dpo", {"beta": 0.1, "sft": 0.25}, {"beta": 0.1, "sft_weight": 0.25}),
    (["hinge", "sft"], "dpo_hinge", {"beta": 0.1, "sft": 0.25}, {"beta": 0.1, "margin": 1.0, "sft_weight": 0.25}),
    # WPO's weights multiply the loss that stands beside them.
    (["sigmoid"], "wpo", {"beta": 0.1, "use_weighting": True}, {"beta": 0.1}),
    (["sigmoid"], "wpo", {"beta": 0.5, "use_weighting": True, "ld_alpha": 0.3}, {"beta": 0.5, "ld_alpha": 0.3}),
    # Mixtures; TRL's weights are 1 and the one called sft here.
    (["sigmoid", "sft"], "dpo:1,sft:0.25", {"beta": 0.1, "sft": 0.25}, {"beta": 0.1}),
    (["apo_zero", "sft"], "apo_zero:1,sft:0.2", {"beta": 0.3, "sft": 0.2}, {"beta": 0.3}),
    (["sigmoid", "bco_pair"], "dpo:1,bco_pair:0.5", {"beta": 0.1, "sft": 0.5}, {"beta": 0.1}),
]


def tiny_model(seed: int) -> transformers.PreTrainedModel:
    torch.manual_seed(seed)
    config = transformers.Qwen2Config(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, initializer_range=0.6, pad_token_id=0, eos_token_id=1,
        bos_token_id=None,
    )  # fmt: skip
    return transformers.Qwen2ForCausalLM(config).eval()


def tiny_tokenizer() -> transformers.PreTrainedTokenizerFast:
    words = {"<pad>": 0, "<end>": 1} | {f"w{i}": i for i in range(2, VOCABULARY)}
    model = tokenizers.models.WordLevel(words)
    core = tokenizers.Tokenizer(model)
    core.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "eos_token": "<end>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core, **special)


def token_rows(lengths: list[tuple[int, int]], seed: int) -> list[dict[str, list[int]]]:
    generator = torch.Generator().manual_seed(seed)

    def ids(n: int) -> list[int]:
        return torch.randint(2, VOCABULARY, (n,), generator=generator).tolist()

    return [{"prompt_ids": ids(3), "chosen_ids": ids(a), "rejected_ids": ids(b)} for a, b in lengths]


def trainer_for(loss_types: list[str], settings: dict[str, float], folder: str) -> trl.DPOTrainer:
    """A real trainer through its own constructor, checks included."""
    settings = dict(settings)
    sft = settings.pop("sft", None)
    config = trl.DPOConfig(
        output_dir=folder, loss_type=loss_types, loss_weights=None if sft is None else [1.0, sft], bf16=False,
        use_cpu=True, report_to=[], gradient_checkpointing=False, **settings,
    )  # fmt: skip
    # The constructor wants a text data set; the batches that are measured are made below.
    rows = datasets.Dataset.from_list([{"prompt": "w2 w3", "chosen": " w4 w5", "rejected": " w6"}])
    return trl.DPOTrainer(
        model=tiny_model(1), ref_model=tiny_model(2), args=config, train_dataset=rows, processing_class=tiny_tokenizer()
    )


class Forced(torch.nn.Module):
    """Stands where a model stands and returns the per-token log-probs it was given ([2P, T], chosen first), and with
    them the logarithms of Σ p² of which TRL makes WPO's weights."""

    def __init__(self, log_probs: torch.Tensor, collisions: torch.Tensor | None = None) -> None:
        super().__init__()
        self.log_probs, self.collisions = log_probs, collisions

    def forward(self, **_: object) -> types.SimpleNamespace:
        nothing = torch.zeros_like(self.log_probs)
        return types.SimpleNamespace(
            log_probs=self.log_probs, log_sum_sq_probs=self.collisions, entropy=nothing, mean_logits=nothing,
            is_top1=nothing.bool(),
        )  # fmt: skip


def forced_batch(rows: list[dict[str, list[int]]], ratios: list[tuple[float, float]], seed: int) -> dict[str, Any]:
    """Per-token log-probs (nats) whose sums differ by the wanted log-ratios, split unevenly over the tokens, and each
    token's ln Σ p²."""
    generator, other = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(100 + seed)

    def draw(n: int) -> torch.Tensor:
        return torch.rand(n, generator=generator, dtype=torch.float64)

    batch: dict[str, Any] = {"rows": rows}
    for k, side in enumerate(("chosen", "rejected")):
        reference = [-3.0 * draw(len(row[f"{side}_ids"])) for row in rows]
        shares = [s / s.sum() for s in (draw(len(x)) + 0.1 for x in reference)]
        batch[f"reference_{side}"] = [x.tolist() for x in reference]
        drawn = [torch.rand(len(x), generator=other, dtype=torch.float64) for x in reference]
        batch[f"collisions_{side}"] = [(-2.0 * x).tolist() for x in drawn]
        batch[f"policy_{side}"] = [(x + r[k] * s).tolist() for x, r, s in zip(reference, ratios, shares, strict=True)]
    return batch


def padded(batch: dict[str, Any], who: str, prompt: int, width: int) -> torch.Tensor:
    """[2P, width − 1] as TRL's fused head returns it: token t's log-prob at t − 1, zero outside responses."""
    out = torch.zeros(2 * len(batch["rows"]), width - 1, dtype=torch.float64)
    for i, logps in enumerate(batch[f"{who}_chosen"] + batch[f"{who}_rejected"]):
        out[i, prompt - 1 : prompt - 1 + len(logps)] = torch.tensor(logps, dtype=torch.float64)
    return out


def forced_loss(trainer: trl.DPOTrainer, batch: dict[str, Any]) -> dict[str, Any]:
    """TRL's loss on forced log-probs, and its derivative by the first and last token of each response, chosen first.

    All tokens of a response have one derivative, but for the tail that `ld_alpha` discounts.
    """
    inputs = trainer.data_collator(batch["rows"])
    width, prompt = inputs["input_ids"].shape[1], len(batch["rows"][0]["prompt_ids"])
    policy = padded(batch, "policy", prompt, width).requires_grad_()
    trainer.ref_model = Forced(padded(batch, "reference", prompt, width))
    collisions = padded(batch, "collisions", prompt, width)
    loss = trainer._compute_loss(Forced(policy, collisions), inputs, return_outputs=False)
    (gradient,) = torch.autograd.grad(loss, policy)
    lengths = [len(x) for x in batch["policy_chosen"] + batch["policy_rejected"]]
    return {
        "loss": loss.item(),
        "first": gradient[:, prompt - 1].tolist(),
        "last": [gradient[i, prompt - 2 + n].item() for i, n in enumerate(lengths)],
    }


def part(batch: dict[str, Any], i: int) -> dict[str, Any]:
    return {key: [values[i]] for key, values in batch.items()}


def odds_ratio(batch: dict[str, Any], beta: float) -> list[float | None]:
    """ORPOTrainer's odds-ratio term of each pair (to be subtracted from the likelihood), from mean log-probs."""
    from trl.experimental.orpo import ORPOTrainer

    trainer = types.SimpleNamespace(beta=beta, accelerator=types.SimpleNamespace(device="cpu"))
    means = [torch.tensor([sum(x) / len(x) for x in batch[f"policy_{side}"]]) for side in ("chosen", "rejected")]
    terms = ORPOTrainer.odds_ratio_loss(trainer, *means)[0].tolist()
    return [None if math.isnan(term) else term for term in terms]  # a mean above 0 has no odds


def model_loss(trainer: trl.DPOTrainer, rows: list[dict[str, list[int]]]) -> dict[str, Any]:
    """TRL's loss on its own models, nothing replaced, and the summed log-probs that it starts from."""
    inputs = trainer.data_collator(rows)
    answer: dict[str, Any] = {"loss": trainer._compute_loss(trainer.model, inputs, return_outputs=False).item()}
    for who, model in (("policy", trainer.model), ("reference", trainer.ref_model)):
        chosen, rejected = trainer.compute_ref_log_probs(model, inputs)
        answer |= {f"{who}_chosen": chosen.tolist(), f"{who}_rejected": rejected.tolist()}
    if trainer.use_weighting:
        answer["token_sums"] = token_sums(trainer, inputs)
    return answer


@torch.no_grad()
def token_sums(trainer: trl.DPOTrainer, inputs: dict[str, torch.Tensor]) -> dict[str, list[float]]:
    """What the policy's head gives to TRL's loss, summed over each response, chosen first, without `ld_alpha`."""
    completion = inputs["completion_mask"]
    labels = inputs["input_ids"].masked_fill(completion == 0, -100)
    model_inputs = {key: value for key, value in inputs.items() if key != "completion_mask"}
    outputs = trainer.model(**model_inputs, labels=labels, use_cache=False, fused_lm_head=True)
    columns = {"log_probs": outputs.log_probs, "log_sum_sq_probs": outputs.log_sum_sq_probs}
    return {name: (values * completion[..., 1:]).sum(1).tolist() for name, values in columns.items()}


def main(target: str) -> None:
    lengths = [(3, 5), (6, 2), (4, 4), (1, 7), (8, 3), (5, 6)]
    near = [(0.0, 0.0), (1.5, -0.5), (-2.0, 1.0), (4.0, 3.5), (-6.0, -9.0), (0.3, 7.0)]
    far = [(12.0, -14.0), (-60.0, 60.0), (-20.0, -60.0), (35.0, 30.0), (9.9, -10.1), (150.0, -250.0)]
    model_rows = token_rows(lengths, seed=5)
    batches = {
        "near": forced_batch(token_rows(lengths, seed=3), near, seed=11),
        "far": forced_batch(token_rows(lengths, seed=4), far, seed=12),
        # The two ways to average an sft term agree only where chosen responses are equally long.
        "equal": forced_batch(token_rows([(4, 5), (4, 2), (4, 4)], seed=6), near[1:4], seed=13),
    }
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        for loss_types, name, settings, parameters in CASES:
            trainer = trainer_for(loss_types, settings, folder)
            case: dict[str, Any] = {
                "trl_loss_type": loss_types, "trl_settings": settings, "objective": name, "parameters": parameters,
                "model": model_loss(trainer, model_rows), "forced": {},
            }  # fmt: skip
            for key, batch in batches.items():
                alone = [forced_loss(trainer, part(batch, i))["loss"] for i in range(len(batch["rows"]))]
                case["forced"][key] = forced_loss(trainer, batch) | {"alone": alone}
            cases.append(case)
    golden: dict[str, Any] = {
        "made_by": "tests/objectives/make_golden.py",
        "versions": {"trl": trl.__version__, "torch": torch.__version__, "transformers": transformers.__version__},
        "model_lengths": lengths,
        "batches": {
            name: {key: value for key, value in batch.items() if key != "rows"} for name, batch in batches.items()
        },
        "orpo": {
            "beta": 0.1,
            "batches": {name: odds_ratio(batch, 0.1) for name, batch in batches.items() if name != "far"},
        },
        "cases": cases,
    }
    body = ",\n".join(json.dumps(case) for case in golden.pop("cases"))
    pathlib.Path(target).write_text(json.dumps(golden)[:-1] + ',\n"cases": [\n' + body + "\n]}\n", encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    main(sys.argv[1])
