"""Configurations in the forms that other trainers publish, carried over; every key of theirs is accounted for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trimtab import config
from trimtab.commands import convert
from trimtab.config import Config
from trimtab.config.files import read_file
from trimtab.errors import ConfigError

TRL = """\
model_name_or_path: Qwen/Qwen2-0.5B-Instruct
dataset_name: trl-lib/ultrafeedback_binarized
learning_rate: 5.0e-6
num_train_epochs: 1
per_device_train_batch_size: 2
gradient_accumulation_steps: 8
max_steps: 1000
warmup_steps: 50
loss_type: [sigmoid, sft]
loss_weights: [1.0, 0.2]
output_dir: out-dpo
use_peft: true
lora_r: 32
lora_alpha: 16
lora_target_modules: [q_proj, v_proj]
logging_steps: 25
eval_strategy: steps
eval_steps: 50
no_remove_unused_columns: true
"""
HANDBOOK = """\
model_name_or_path: alignment-handbook/zephyr-7b-sft-full
torch_dtype: null
dataset_mixer:
  HuggingFaceH4/ultrafeedback_binarized: 1.0
dataset_splits: [train_prefs, test_prefs]
preprocessing_num_workers: 12
bf16: true
beta: 0.01
do_eval: true
gradient_accumulation_steps: 2
gradient_checkpointing: true
hub_model_id: zephyr-7b-dpo-full
learning_rate: 5.0e-7
lr_scheduler_type: cosine
max_length: 1024
max_prompt_length: 512
num_train_epochs: 1
optim: adamw_torch
output_dir: data/zephyr-7b-dpo-full
per_device_train_batch_size: 8
save_strategy: steps
save_steps: 100
save_total_limit: 1
seed: 42
warmup_ratio: 0.1
"""
LLAMA_FACTORY = """\
model_name_or_path: meta-llama/Meta-Llama-3-8B-Instruct
stage: dpo
do_train: true
finetuning_type: lora
lora_target: all
pref_beta: 0.2
pref_loss: sigmoid
dataset: dpo_en_demo
template: llama3
cutoff_len: 2048
max_samples: 1000
overwrite_cache: true
output_dir: saves/llama3-8b/lora/dpo
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
learning_rate: 5.0e-6
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
ddp_timeout: 180000000
"""
AXOLOTL = """\
base_model: NousResearch/Meta-Llama-3-8B-Instruct
load_in_4bit: true
adapter: qlora
lora_r: 32
lora_alpha: 16
lora_dropout: 0.05
lora_target_linear: true
rl: dpo
rl_beta: 0.3
datasets:
  - path: fozziethebeat/alpaca_messages_2k_dpo_test
    type: chat_template.default
    split: train
sequence_len: 4096
sample_packing: false
micro_batch_size: 2
gradient_accumulation_steps: 4
num_epochs: 4
optimizer: adamw_bnb_8bit
lr_scheduler: cosine
learning_rate: 0.0002
warmup_steps: 10
val_set_size: 0.05
flash_attention: true
evals_per_epoch: 4
loraplus_lr_ratio: 16
lora_modules_to_save:
"""


def converted(text: str, folder: Path, *, devices: int = 1) -> tuple[Config, convert.Outcome]:
    file, to = folder / "theirs.yaml", folder / "recipe.toml"
    file.write_text(text)
    result = convert.main(str(file), to=str(to), devices=devices)
    theirs = read_file(file)
    accounted = {name for name, _ours in result.key_pairs} | set(result.lost_keys)
    # keys that only decide how others are read have no line of their own
    silent = {"gradient_accumulation_steps", "loss_weights", "lora_target", "lora_target_linear", "load_in_4bit"}
    silent |= {"optim"} if theirs.get("optim", "").startswith("adamw") else set()
    assert {key for key, value in theirs.items() if value is not None} - accounted - silent == set()
    return config.resolve(read_file(to)), result


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


def test_the_alignment_handbook_on_eight_devices(tmp_path: Path) -> None:
    ours, result = converted(HANDBOOK, tmp_path, devices=8)
    assert (ours.data.source, ours.data.split) == ("HuggingFaceH4/ultrafeedback_binarized", "train_prefs")
    assert (ours.objective.name, ours.objective.beta, ours.adapter.kind) == ("dpo", 0.01, "none")
    assert ours.train.batch_pairs == 8 * 2 * 8
    assert (ours.data.max_prompt_tokens, ours.data.max_response_tokens) == (512, 512)
    assert (ours.train.learning_rate, ours.train.save_every, ours.train.keep_checkpoints) == (5e-7, 100, 2)
    assert {"bf16", "hub_model_id", "preprocessing_num_workers"} <= set(result.lost_keys)
    assert "torch_dtype" not in result.lost_keys  # null: it is not set
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
    assert (ours.adapter.targets, ours.train.batch_pairs, ours.train.epochs) == ("all-linear", 8, 3.0)
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
