"""WPO from prepared pairs to a report: weights of the policy itself, in the loss and nowhere else."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from stage_runs import Recorder, align, make_config, make_pairs, prepare, weights, write_model
from trimtab import config as configuration
from trimtab import store
from trimtab.config import Config
from trimtab.errors import ConfigError, DataError
from trimtab.runtime import set_up
from trimtab.runtime.folder import Folder
from trimtab.stages import prepare as preparing
from trimtab.stages import report

WPO = {"name": "wpo", "beta": 0.5, "margin": None}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "qwen")


@torch.no_grad()
def log_weight(model: Any, prompt: tuple[int, ...], response: tuple[int, ...]) -> float:
    """Mean of ln p − ln Σ p² over the tokens of one response, from all logits."""
    ids = torch.tensor([prompt + response])
    logps_NV = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].double().log_softmax(-1)
    logps_N = logps_NV.gather(1, ids[0, len(prompt) :, None])[:, 0]
    return float((logps_N - logps_NV.exp().square().sum(1).log()).mean())


def a_config(out: Path, model: Path, **sections: Any) -> Config:
    train_keys = {"epochs": 4, "batch_pairs": 8, "learning_rate": 3e-3, "save_every": 100}
    return make_config(out, model, train=train_keys, **({"objective": WPO} | sections))


def run(config: Config) -> tuple[Folder, Recorder]:
    prepare(config, make_pairs(32), make_pairs(8, seed=1, name="held"))
    return align(config)


@pytest.mark.parametrize("adapter", [{}, {"kind": "lora", "rank": 4, "alpha": 8.0}], ids=["full", "lora"])
def test_the_first_loss_is_ln_2_times_the_mean_weight(adapter: dict[str, Any], model: Path, tmp_path: Path) -> None:
    config = a_config(tmp_path / "run", model, adapter=adapter)
    folder, _ = run(config)
    rows, pairs, setup = store.read_jsonl(folder.metrics), folder.train_pairs(), set_up(config)
    batch = [pairs[i] for i in setup.training_order(pairs).batch(0).indices]
    plain = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    pair_weights = torch.tensor(
        [
            math.exp(sum(log_weight(plain, pair.prompt_ids, ids) for ids in (pair.chosen_ids, pair.rejected_ids)))
            for pair in batch
        ]
    )
    assert float(pair_weights.std()) > 0.2 * float(pair_weights.mean())
    assert rows[0]["loss"] == pytest.approx(math.log(2) * float(pair_weights.mean()), rel=1e-4)
    assert rows[0]["pull/chosen"] == pytest.approx(1.0, abs=1e-3)
    assert all(row["skipped_backward"] == 0.0 for row in rows)
    assert rows[-1]["rewards/margins"] > 0.1
    report.main(setup, reporter=Recorder())
    assert "wpo" in (folder.root / "report.md").read_text(encoding="utf-8")


def test_screening_finds_nothing_to_screen_and_says_so(model: Path, tmp_path: Path) -> None:
    asked, told = run(a_config(tmp_path / "asked", model, engine={"screening": "on"}))
    plain, _ = run(a_config(tmp_path / "plain", model))
    assert any("screening is off: wpo has no dead zone" in line for line in told.lines)
    ours, theirs = weights(asked), weights(plain)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    with pytest.raises(ConfigError, match=r"engine\.shrinking = on has no effect here: wpo has no dead zone"):
        a_config(tmp_path / "shrunk", model, engine={"shrinking": "on"})


def test_a_cap_of_the_weights_is_read(model: Path, tmp_path: Path) -> None:
    capped, _ = run(a_config(tmp_path / "capped", model, objective={**WPO, "weight_cap": 1e-3}))
    first = store.read_jsonl(capped.metrics)[0]
    assert first["loss"] == pytest.approx(1e-3 * math.log(2), rel=1e-4)  # all eight weights are above it


def test_single_responses_are_refused_by_name(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text('{"prompt": "What is 2?", "completion": "Two.", "label": true}\n', encoding="utf-8")
    config = configuration.resolve(
        {"model": "windtunnel", "data": str(source), "out": str(tmp_path / "run"), "objective": "wpo"}
    )
    with pytest.raises(DataError, match=r"rows\.jsonl:1 is a single response with a label, and wpo reads pairs"):
        preparing.main(set_up(config), reporter=Recorder())
    with pytest.raises(ConfigError, match="some read pairs, and some single responses"):
        configuration.resolve({"model": "windtunnel", "data": str(source), "objective": "wpo:1,kto:1"})
