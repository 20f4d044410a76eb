"""Configurations in the forms that other trainers publish, carried over; every key of theirs is accounted for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from convert_forms import AXOLOTL, HANDBOOK, LLAMA_FACTORY, TRL, converted
from trimtab.errors import ConfigError


def test_trl(tmp_path: Path) -> None:
    ours, result = converted(TRL, tmp_path)
    assert result.tool == "trl"
    assert (ours.model.name, ours.data.source) == ("Qwen/Qwen2-0.5B-Instruct", "trl-lib/ultrafeedback_binarized")
    assert ours.objective.name == "dpo:1,sft:0.2"
    assert (ours.adapter.kind, ours.adapter.rank, ours.adapter.alpha, ours.adapter.targets) == (
        "lora", 32, 16.0, ("q_proj", "v_proj"),
    )  # fmt: skip
    train = ours.train
    assert (train.batch_pairs, train.learning_rate, train.max_steps) == (16, 5e-6, 1000)
    assert (train.warmup, train.schedule) == (0.05, "linear")  # 50 of 1,000 steps; their default schedule
    assert (ours.seed, ours.data.holdout) == (42, 0.0)  # their defaults, not ours
    assert ours.data.max_prompt_tokens + ours.data.max_response_tokens == 1024  # max_length's default
    assert {"logging_steps", "eval_strategy", "eval_steps", "no_remove_unused_columns"} == set(result.lost_keys)
    assert result.lost_keys["no_remove_unused_columns"] == "not known to trimtab"


def test_trls_weighting_is_an_objective(tmp_path: Path) -> None:
    plain = TRL.replace("loss_type: [sigmoid, sft]\nloss_weights: [1.0, 0.2]\n", "loss_type: sigmoid\n")
    ours, result = converted(f"{plain}use_weighting: true\nlabel_smoothing: 0.1\n", tmp_path)
    assert ours.objective.name == "wpo"
    assert "use_weighting" not in result.lost_keys
    assert result.lost_keys["label_smoothing"] == "TRL's default loss ignores it, and wpo has none"
    (tmp_path / "two").mkdir()
    mixed, result = converted(f"{TRL}use_weighting: true\n", tmp_path / "two")
    assert mixed.objective.name == "dpo:1,sft:0.2"
    assert "objective wpo" in result.lost_keys["use_weighting"]


def test_the_alignment_handbook_on_eight_devices(tmp_path: Path) -> None:
    ours, result = converted(HANDBOOK, tmp_path, devices=8)
    assert (ours.data.source, ours.data.split) == ("HuggingFaceH4/ultrafeedback_binarized", "train_prefs")
    assert (ours.objective.name, ours.objective.beta, ours.adapter.kind) == ("dpo", 0.01, "none")
    assert ours.train.batch_pairs == 8 * 2 * 8
    assert (ours.data.max_prompt_tokens, ours.data.max_response_tokens) == (512, 512)
    assert (ours.train.learning_rate, ours.train.save_every, ours.train.keep_checkpoints) == (5e-7, 100, 2)
    assert {"bf16", "hub_model_id", "preprocessing_num_workers"} <= set(result.lost_keys)
    assert "torch_dtype" not in result.lost_keys  # null: it is not set
    assert any(
        note.endswith("to hold test_prefs out, data.eval names the set and data.eval_split the split")
        for note in result.notes
    )
    assert "Not carried over: hub_model_id" in (tmp_path / "recipe.toml").read_text()


def test_a_mixture_of_the_alignment_handbook(tmp_path: Path) -> None:
    text = """\
model_name_or_path: m
dataset_mixture:
  datasets:
    - {id: a/b, config: c, split: train_prefs, weight: 0.5}
    - {id: d/e, split: train_prefs}
  test_split_size: 0.02
"""
    ours, result = converted(text, tmp_path)
    assert ours.data.source == {"a/b:c": 0.5, "d/e": 1.0}
    assert (ours.data.split, ours.data.holdout) == ("train_prefs", 0.02)
    assert any("shares of a mixture" in note for note in result.notes)


def test_llama_factory(tmp_path: Path) -> None:
    ours, result = converted(LLAMA_FACTORY, tmp_path)
    assert (ours.objective.name, ours.objective.beta, ours.data.limit) == ("dpo", 0.2, 1000)
    assert (ours.adapter.kind, ours.adapter.rank, ours.adapter.alpha) == (
        "lora",
        8,
        16.0,
    )  # their default: twice the rank
    assert (ours.adapter.targets, ours.adapter.quantize) == ("all-linear", "none")
    assert (ours.train.batch_pairs, ours.train.epochs, ours.train.warmup) == (8, 3.0, 0.1)
    assert any("dpo_en_demo stands in a dataset_info.json" in note for note in result.notes)


def test_a_name_of_llama_factorys_register_is_looked_up(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps({"dpo_en_demo": {"file_name": "demo.json"}}))
    ours, result = converted(LLAMA_FACTORY, tmp_path)
    assert ours.data.source == str(tmp_path / "data" / "demo.json")
    assert not any("dataset_info.json" in note for note in result.notes)


def test_an_older_name_of_axolotls_beta(tmp_path: Path) -> None:
    ours, result = converted(AXOLOTL.replace("rl_beta: 0.3", "dpo_beta: 0.01"), tmp_path)
    assert ours.objective.beta == 0.01
    assert [theirs for theirs, key in result.key_pairs if key == "objective.beta"] == ["dpo_beta"]
    assert "lora_modules_to_save" not in result.lost_keys  # without a value it is not set


def test_axolotl(tmp_path: Path) -> None:
    ours, result = converted(AXOLOTL, tmp_path)
    assert (ours.adapter.kind, ours.adapter.quantize, ours.adapter.rank) == ("lora", "nf4", 32)
    assert (ours.objective.name, ours.objective.beta, ours.train.optimizer) == ("dpo", 0.3, "adamw_8bit")
    assert (ours.train.batch_pairs, ours.train.epochs, ours.train.warmup) == (8, 4.0, 0.0)
    assert "share of all steps" in result.lost_keys["warmup_steps"]
    assert result.lost_keys["loraplus_lr_ratio"] == "not known to trimtab"
    assert any("types and fields" in note for note in result.notes)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("learning_rate: 1e-5\n", "no configuration of TRL"),
        (LLAMA_FACTORY.replace("stage: dpo", "stage: sft"), "trains by sft"),
        (AXOLOTL.replace("rl: dpo\n", ""), "trains by supervised fine-tuning"),
        (HANDBOOK + "loss_type: kto_pair\n", "loss_type kto_pair has no counterpart"),
        ("model_name_or_path: m\n", "names no data set"),
        (HANDBOOK.replace("beta: 0.01", "beta: -1"), "cannot be carried over"),
    ],
)
def test_what_cannot_be_converted_leaves_no_file(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        converted(text, tmp_path)
    assert not (tmp_path / "recipe.toml").exists()
