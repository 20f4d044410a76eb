"""Models and pairs that no one here wrote, through the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from trial_runs import call, rows_of, tree_of

pytestmark = pytest.mark.needs_shared

METRICS = {
    "step", "epoch", "seconds", "loss", "grad_norm", "learning_rate", "rewards/chosen", "rewards/rejected",
    "rewards/accuracies", "rewards/margins", "logps/chosen", "logps/rejected", "active/chosen", "active/rejected",
    "active/pair", "skipped_backward", "tokens", "tokens_per_second", "peak_memory_bytes",
}  # fmt: skip
SETS = {
    "ukp-convarg1-strict/pairs.jsonl": 11_650,
    "finegrained-rlhf-dev/pairs.jsonl": 2_616,
    "hh-rlhf-harmless-base-test/test.jsonl.gz": 2_312,
    "llamafactory-dpo-en-demo/dpo_en_demo.json": 299,
}


def a_log_prob(model: Any, pair: dict[str, Any]) -> float:
    """Sum over the chosen response, by plain transformers: one unpadded row."""
    ids = torch.tensor([pair["prompt_ids"] + pair["chosen_ids"]])
    with torch.no_grad():
        logps = model(ids).logits[0].float().log_softmax(-1)
    start = len(pair["prompt_ids"])
    return float(sum(logps[at - 1, ids[0, at]] for at in range(start, ids.shape[1])))


def loaded(folder: Path, base: Path, adapter: str) -> Any:
    from transformers import AutoModelForCausalLM

    if adapter == "none":
        return AutoModelForCausalLM.from_pretrained(folder).eval()
    from peft import PeftModel

    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder).eval()


@pytest.mark.parametrize("adapter", ["none", "lora"])
@pytest.mark.parametrize("name", ["stories260K", "cardputer-chat-3M"])
def test_a_real_model_is_aligned_and_loads_elsewhere(
    name: str, adapter: str, shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoModelForCausalLM

    base = shared_data / "models" / name
    out, source = tmp_path / "run", tmp_path / "every 190th pair.jsonl"  # 32 topics in 11,650 rows
    lines = (shared_data / "pairs/ukp-convarg1-strict/pairs.jsonl").read_text(encoding="utf-8").splitlines(True)
    source.write_text("".join(lines[::190]), encoding="utf-8")
    words = ["run", "--model", base, "--data", source, "--data.limit", "60", "--data.holdout", "0.2",
             "--data.max-rejected", "1", "--data.max-prompt-tokens", "64",
             "--data.max-response-tokens", "64", "--adapter", adapter, "--train.max-steps", "3",
             "--train.batch-pairs", "8", "--train.learning-rate", "1e-3", "--out", out, "--quiet"]  # fmt: skip
    code, printed, said = call(words, capsys)
    assert (code, printed) == (0, ""), said
    rows = rows_of(out / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert set(rows[0]) >= METRICS
    assert rows[0]["loss"] == pytest.approx(2.0, abs=1e-4)
    assert all(0 <= row[key] <= 1 for row in rows for key in METRICS if key.startswith("active/"))
    planned = tree_of(out / "plan.json")["train"]
    planned_heldout = tree_of(out / "plan.json")["heldout_pairs"]
    pairs = rows_of(out / "data/train.jsonl")
    assert (planned["pairs"], planned["steps"]) == (len(pairs), 3)
    aligned = loaded(out / "model", base, adapter)
    unaligned = AutoModelForCausalLM.from_pretrained(base).eval()
    moved = [abs(a_log_prob(aligned, pair) - a_log_prob(unaligned, pair)) for pair in pairs[:3]]
    assert max(moved) > 1e-2, moved
    told = tree_of(out / "report.json")
    assert told["benchmark"] is None
    assert told["heldout"]["accuracy"]["n"] == planned_heldout == len(rows_of(out / "data/heldout.jsonl"))


@pytest.mark.parametrize("name", SETS)
def test_every_row_of_a_real_set_is_accounted_for(
    name: str, shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = shared_data / "pairs" / name
    code, printed, said = call(["audit", source, "--json"], capsys)
    assert code == 0, said
    told = json.loads(printed)
    assert told["rows"] == SETS[name] == told["kept"] + told["dropped"]
    assert told["dropped"] == sum(told["dropped_by_reason"].values()) < 0.1 * SETS[name]
    limit = min(400, SETS[name])
    out = tmp_path / "run"
    code, _, said = call(
        ["prepare", "--model", shared_data / "models/stories260K", "--data", source, "--data.limit", str(limit),
         "--data.max-rejected", "1", "--out", out, "--quiet"], capsys,
    )  # fmt: skip
    assert code == 0, said
    audit = tree_of(out / "data/audit.json")
    rejected = rows_of(out / "data/rejected.jsonl")
    assert audit["rows"] == limit == audit["kept"] + audit["dropped"]
    assert audit["kept"] == audit["train"] + audit["heldout"] == len(rows_of(out / "data/pairs.jsonl"))
    assert len(rejected) == audit["dropped"]
    assert all(row["id"] and row["reason"] for row in rejected)
    window = 512
    for row in rows_of(out / "data/train.jsonl"):
        assert len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"])) <= window
