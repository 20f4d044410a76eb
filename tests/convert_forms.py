"""Configurations in the forms that other trainers publish, and their conversion with every key accounted for."""

from __future__ import annotations

from pathlib import Path

from trimtab import config
from trimtab.commands import convert
from trimtab.config import Config
from trimtab.config.files import read_file

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
    silent = {"gradient_accumulation_steps", "batch_size", "loss_weights", "lora_target", "lora_target_linear",
              "load_in_4bit", "dataset_configs"}  # fmt: skip
    assert {key for key, value in theirs.items() if value is not None} - accounted - silent == set()
    return config.resolve(read_file(to)), result
