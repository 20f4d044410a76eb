"""A model folder that is itself an adapter: the merged model says what the adapter says on its base.

Sources of the kinds: peft#2898 (an adapter named as the model), peft's warnings on tied weights (an adapter on one of
two tied matrices merges into both), peft's documentation of PiSSA, OLoRA and CorDA (their base is not the base).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from engine_families import build
from peft import LoraConfig, get_peft_model
from test_models import write_tokenizer
from transformers import AutoModelForCausalLM

from trimtab import store
from trimtab.engine import models
from trimtab.errors import ModelError

IDS = torch.arange(3, 60)[None]
ROWS = 97  # of the families' vocabulary


def _logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=IDS % ROWS).logits
    return logits


def _adapter(root: Path, *, tied: bool, n_added: int = 0, **options: Any) -> tuple[Path, torch.Tensor]:
    """A PEFT folder whose every number has moved, and the logits of adapter and base together."""
    base = root / "base"
    base.mkdir()
    models.save(build("Llama", tie_word_embeddings=tied), write_tokenizer(), base)
    model = AutoModelForCausalLM.from_pretrained(base)
    if n_added:
        model.resize_token_embeddings(ROWS + n_added, mean_resizing=False)
    torch.manual_seed(1)
    peft_model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", **options)).eval()
    with torch.no_grad():
        for parameter in peft_model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
    peft_model.save_pretrained(root / "adapter")
    write_tokenizer().save_pretrained(root / "adapter")
    return root / "adapter", _logits(peft_model)


@pytest.mark.filterwarnings("ignore")  # PEFT says of each of these that a merge may go wrong; here it is compared
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": ["q_proj", "lm_head", "embed_tokens"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
        {"target_modules": ["q_proj", "lm_head"], "ensure_weight_tying": True},
        {"target_modules": ["q_proj"], "trainable_token_indices": [3, 5, 9]},
        {"target_modules": "all-linear", "use_dora": True},
        {"use_rslora": True},
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "olora"},
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"], "n_added": 8},
    ],
    ids=lambda options: "-".join(map(str, options.values())).replace("'", "") or "plain",
)
def test_the_merged_folder_says_what_the_adapter_says_on_its_base(
    tmp_path: Path, options: dict[str, Any], tied: bool
) -> None:
    adapter, expected = _adapter(tmp_path, tied=tied, **options)
    folder = models.plain_folder(adapter)
    torch.testing.assert_close(_logits(models.load(str(folder), device="cpu").model), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        _logits(AutoModelForCausalLM.from_pretrained(folder).eval()), expected, atol=1e-5, rtol=0
    )
    assert models.plain_folder(adapter) == folder
    assert models.plain_folder(folder) == folder


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("start", ["pissa_niter_4", "loftq", "corda"])
def test_a_start_that_cannot_be_repeated_is_refused_by_name(tmp_path: Path, start: str) -> None:
    adapter, _ = _adapter(tmp_path, tied=False)
    config = store.read_json(adapter / "adapter_config.json")
    store.write_json(adapter / "adapter_config.json", config | {"init_lora_weights": start})
    with pytest.raises(ModelError, match=start):
        models.plain_folder(adapter)


@pytest.mark.filterwarnings("ignore")
def test_added_tokens_whose_rows_were_not_saved_are_refused(tmp_path: Path) -> None:
    """PEFT saves the embedding that an adapter targets, and not the rows that the untied head got beside it."""
    adapter, _ = _adapter(tmp_path, tied=False, n_added=8, target_modules=["q_proj", "embed_tokens"])
    with pytest.raises(ModelError, match="vocabulary of 105 rows"):
        models.plain_folder(adapter)


@pytest.mark.filterwarnings("ignore")
def test_a_merge_that_gives_another_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the comparison is for: without untying, an adapter on a tied head changes the embedding too."""
    adapter, _ = _adapter(tmp_path, tied=True, target_modules=["q_proj", "lm_head"])
    monkeypatch.setattr("trimtab.engine.adapters._untie", lambda _model: None)
    with pytest.raises(ModelError, match="gives another model"):
        models.plain_folder(adapter)


def test_an_adapter_kind_that_is_not_read_is_named(tmp_path: Path) -> None:
    adapter, _ = _adapter(tmp_path, tied=False)
    config = store.read_json(adapter / "adapter_config.json")
    store.write_json(adapter / "adapter_config.json", config | {"peft_type": "LOHA"})
    with pytest.raises(ModelError, match="LOHA"):
        models.plain_folder(adapter)
