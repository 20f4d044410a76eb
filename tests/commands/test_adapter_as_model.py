"""A run's own LoRA result as the next run's model: trained further, and tuned whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from trial_runs import TINY, call, tree_of
from trimtab.engine import models

IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])


def _logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=IDS).logits
    return logits


@pytest.mark.parametrize("adapter", ["lora", "none"])
def test_the_next_run_stands_on_base_and_adapter_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], adapter: str
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    quick = [*TINY, "--generate.max-new-tokens", "8", "--train.learning-rate", "1e-2"]
    world = ["--data", "windtunnel", "--objective", "apo_hinge_zero", "--benchmark", "windtunnel", "--judge", "oracle"]
    code, _, messages = call(["run", *quick, "--adapter", "lora", "--out", first], capsys)
    assert code == 0, messages
    code, _, messages = call(
        ["run", *quick, *world, "--model", first / "model", "--adapter", adapter, "--out", second], capsys
    )
    assert code == 0, messages
    assert "is an adapter: the model is its base with the adapter merged in" in messages
    start = _logits(models.load(str(first / "model"), device="cpu").model)
    embedded = AutoModelForCausalLM.from_pretrained(Path(models.__file__).parents[1] / "windtunnel" / "model").eval()
    assert (start - _logits(embedded)).abs().max() > 1e-3, "the first run changed nothing, so nothing is shown"
    if adapter == "none":
        model = AutoModelForCausalLM.from_pretrained(second / "model").eval()
        assert (_logits(model) - start).abs().max() > 1e-4
        return
    base = Path(tree_of(second / "model" / "adapter_config.json")["base_model_name_or_path"])
    torch.testing.assert_close(_logits(AutoModelForCausalLM.from_pretrained(base).eval()), start, atol=1e-5, rtol=1e-5)
    elsewhere = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), second / "model").eval()
    here = models.load(str(second / "model"), device="cpu").model
    torch.testing.assert_close(_logits(elsewhere), _logits(here), atol=1e-5, rtol=1e-5)
