"""What keys of other trainers mean there, by their published sources, and that it is what they become here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from convert_forms import AXOLOTL, LLAMA_FACTORY, TRL, converted
from trimtab.commands import convert
from trimtab.commands.foreign_recipes import DEFAULTS, PLAIN, TRAINER, Tool
from trimtab.config import resolve
from trimtab.config.files import read_file
from trimtab.errors import ConfigError, UserError

MIXTURE = """\
model_name_or_path: m
dataset_mixture:
  datasets:
    - {id: a/b, config: c, split: no_think, weight: 0.5}
    - {id: a/b, config: c, split: think, weight: 0.25}
loss_type: apo_zero
lr_scheduler_type: cosine_with_min_lr
lr_scheduler_kwargs: {min_lr_rate: 0.1}
save_steps: 0.5
max_length: 24576
"""


def test_a_mixture_of_one_set_a_share_of_a_run_and_a_floor_of_the_rate_are_said(tmp_path: Path) -> None:
    """The form of the handbook's SmolLM3 recipe."""
    ours, result = converted(MIXTURE, tmp_path)
    assert (ours.data.source, ours.data.split) == ("a/b:c", "no_think")
    assert any("read once" in note for note in result.notes)
    assert any("takes 0.5 of the rows of a/b:c" in note for note in result.notes)
    assert any("not ['think']" in note for note in result.notes)
    assert (ours.train.schedule, ours.train.save_every) == ("cosine", None)
    assert any("cosine_with_min_lr is not here" in note for note in result.notes)
    assert {"save_steps", "lr_scheduler_kwargs"} == set(result.lost_keys)
    assert (ours.data.max_prompt_tokens, ours.data.max_response_tokens) == (12288, 12288)


def test_whole_data_sets_beside_each_other_are_no_shares(tmp_path: Path) -> None:
    """Weights of 1 there mean every row of each; equal shares here would drop rows of the larger."""
    mixer = "dataset_mixer: {a/b: 1.0, c/d: 1.0}\ndataset_configs: [x, y]\n"
    ours, _result = converted(f"model_name_or_path: m\n{mixer}", tmp_path)
    assert ours.data.source == ("a/b:x", "c/d:y")


def test_fractions_of_trl_are_shares_of_the_mixture_as_here(tmp_path: Path) -> None:
    rows = "{path: a/b, fraction: 0.8}, {path: json, data_files: f.jsonl, fraction: 0.2}"
    text = f"model_name_or_path: m\ndatasets: [{rows}]"
    ours, result = converted(text, tmp_path)
    assert ours.data.source == {"a/b": 0.8, "f.jsonl": 0.2}
    assert not any("shares" in note for note in result.notes)


@pytest.mark.parametrize("tool", ["trl", "llama-factory", "axolotl"])
def test_a_dropout_that_their_trainers_switch_off_is_not_carried_over(tmp_path: Path, tool: str) -> None:
    """DPOTrainer of TRL sets every nn.Dropout's p to 0 (disable_dropout), and the two others build on it."""
    trl = TRL + "lora_dropout: 0.05\n"
    text = {"trl": trl, "llama-factory": LLAMA_FACTORY + "lora_dropout: 0.1\n", "axolotl": AXOLOTL}[tool]
    ours, result = converted(text, tmp_path)
    assert ours.adapter.dropout == 0
    assert "switches every dropout off" in result.lost_keys["lora_dropout"]


def test_a_dropout_that_is_on_there_is_carried_over(tmp_path: Path) -> None:
    ours, _result = converted(TRL + "disable_dropout: false\n", tmp_path)
    assert ours.adapter.dropout == 0.05  # TRL's default


def test_modules_that_trl_leaves_to_peft_are_said(tmp_path: Path) -> None:
    _ours, result = converted(TRL.replace("lora_target_modules: [q_proj, v_proj]\n", ""), tmp_path)
    assert any("q_proj and v_proj in Llama" in note for note in result.notes)


def test_without_an_adapter_its_keys_are_named(tmp_path: Path) -> None:
    ours, result = converted(TRL.replace("use_peft: true", "use_peft: false"), tmp_path)
    assert ours.adapter.kind == "none"
    assert {key for key, cause in result.lost_keys.items() if cause == "no adapter is trained"} == {
        "lora_r", "lora_alpha", "lora_target_modules",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("lengths", "bounds"),
    [
        ("max_length: 1024\nmax_prompt_length: 300\n", (300, 724)),
        ("max_length: 1024\nmax_prompt_length: 512\nmax_completion_length: 256\n", (512, 256)),
        ("max_length: 1024\nmax_prompt_length: 1024\n", (512, 512)),  # bounds no prompt that the whole does not
        ("max_length: null\n", (512, 512)),  # ours: nothing is bounded there
    ],
)
def test_bounds_of_prompts_and_responses(tmp_path: Path, lengths: str, bounds: tuple[int, int]) -> None:
    ours, _result = converted(f"model_name_or_path: m\ndataset_name: d\n{lengths}", tmp_path)
    assert (ours.data.max_prompt_tokens, ours.data.max_response_tokens) == bounds


@pytest.mark.parametrize(
    ("course", "warmup", "schedule"),
    [
        ("warmup_ratio: 0.2\nwarmup_steps: 10\nmax_steps: 100\n", 0.1, "linear"),  # steps go before the ratio
        ("warmup_steps: 0.3\n", 0.3, "linear"),  # transformers 5: below 1 it is a ratio
        ("warmup_ratio: 0.2\nlr_scheduler_type: constant\n", 0.0, "constant"),
        ("warmup_ratio: 0.2\nlr_scheduler_type: constant_with_warmup\n", 0.2, "constant"),
    ],
)
def test_the_warm_up(tmp_path: Path, course: str, warmup: float, schedule: str) -> None:
    ours, _result = converted(f"model_name_or_path: m\ndataset_name: d\n{course}", tmp_path)
    assert (ours.train.warmup, ours.train.schedule) == (warmup, schedule)


@pytest.mark.parametrize(
    ("optimizer", "here"),
    [("paged_adamw_32bit", "adamw"), ("paged_adamw_8bit", "adamw_8bit"), ("lion_8bit", None), ("rmsprop", None),
     ("galore_adamw_8bit", None), ("adamw_torch_4bit", None)],
)  # fmt: skip
def test_only_adamw_is_carried_over_as_adamw(tmp_path: Path, optimizer: str, here: str | None) -> None:
    ours, result = converted(f"model_name_or_path: m\ndataset_name: d\noptim: {optimizer}\n", tmp_path)
    assert ours.train.optimizer == (here or "adamw")
    assert ("optim" in result.lost_keys) is (here is None)


def test_trls_default_loss_ignores_label_smoothing_and_that_is_said(tmp_path: Path) -> None:
    ours, result = converted("model_name_or_path: m\ndataset_name: d\nlabel_smoothing: 0.1\n", tmp_path)
    assert ours.objective.label_smoothing == 0.1
    assert any("ignores label_smoothing" in note for note in result.notes)


def test_held_out_rows_that_are_counted_are_no_share(tmp_path: Path) -> None:
    ours, result = converted(LLAMA_FACTORY + "val_size: 200\n", tmp_path)
    assert ours.data.holdout == 0.05  # ours
    assert result.lost_keys["val_size"] == "it counts rows (200); data.holdout is a share of the prompts"


def test_more_of_llama_factory(tmp_path: Path) -> None:
    """Its register beside the file: a Hub set goes before a file, with its subset; columns by name."""
    (tmp_path / "data").mkdir()
    register = {
        "a": {"file_name": "a.json", "hf_hub_url": "o/a", "subset": "s", "split": "train_prefs", "ranking": True},
        "b": {"file_name": "b.json", "columns": {"prompt": "q", "chosen": "good", "rejected": "bad"}},
    }
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps(register))
    text = LLAMA_FACTORY.replace("dpo_en_demo", "a,b") + "quantization_bit: 4\nld_alpha: 0.5\nref_model: r\n"
    ours, result = converted(text, tmp_path)
    assert ours.data.source == ("o/a:s", str(tmp_path / "data" / "b.json"))
    assert (ours.data.split, ours.data.columns) == (
        "train_prefs", {"prompt": "q", "chosen": "good", "rejected": "bad"},
    )  # fmt: skip
    assert ours.data.limit == 2000  # max_samples is of each data set
    assert (ours.adapter.quantize, ours.objective.ld_alpha, ours.model.reference) == ("nf4", 0.5, "r")
    assert ("quantization_bit", "adapter.quantize") in result.key_pairs


def test_eight_bits_of_llama_factory_are_named(tmp_path: Path) -> None:
    ours, result = converted(LLAMA_FACTORY + "quantization_bit: 8\nadapter_name_or_path: sft\n", tmp_path)
    assert ours.adapter.quantize == "none"
    assert "nf4" in result.lost_keys["quantization_bit"]
    assert "merged into its model first" in result.lost_keys["adapter_name_or_path"]


SIMPO = """\
base_model: m
rl: simpo
simpo_gamma: 0.8
trl: {beta: 2.0}
datasets:
  - {ds_type: json, data_files: [pairs.jsonl], split: train, type: chatml.intel}
max_prompt_len: 400
sequence_len: 1000
micro_batch_size: 2
batch_size: 16
learning_rate: 2e-4
"""


def test_more_of_axolotl(tmp_path: Path) -> None:
    """Files without a path; a batch given whole; its own warm-up of 3 %; SimPO with the likelihood term of CPO."""
    ours, _result = converted(SIMPO, tmp_path)
    assert ours.data.source == "pairs.jsonl"
    assert (ours.objective.name, ours.objective.beta, ours.objective.gamma) == ("simpo", 2.0, 0.8)
    assert ours.objective.sft_weight == 1.0  # CPOConfig.cpo_alpha's default
    assert (ours.train.batch_pairs, ours.train.warmup, ours.train.schedule) == (16, 0.03, "cosine")
    assert (ours.data.max_prompt_tokens, ours.data.max_response_tokens) == (400, 600)


def test_without_the_likelihood_term_it_is_plain_simpo(tmp_path: Path) -> None:
    ours, _result = converted(SIMPO + "cpo_alpha: 0.0\n", tmp_path)
    assert not ours.objective.sft_weight


def test_the_weight_of_axolotls_orpo_is_its_beta(tmp_path: Path) -> None:
    text = SIMPO.replace("simpo\nsimpo_gamma: 0.8\ntrl: {beta: 2.0}", "orpo\norpo_alpha: 0.25")
    ours, _result = converted(text, tmp_path)
    assert (ours.objective.name, ours.objective.beta, ours.objective.sft_weight) == ("orpo", 0.25, None)


def test_an_adapter_that_is_not_here_is_said(tmp_path: Path) -> None:
    ours, result = converted(AXOLOTL.replace("qlora", "llama-adapter"), tmp_path)
    assert ours.adapter.kind == "none"
    assert any("adapter llama-adapter is not here" in note for note in result.notes)


# --- values of another form than their trainers take -----------------------------------------------------------------

BASES: dict[Tool, dict[str, Any]] = {
    "trl": {"model_name_or_path": "m", "dataset_name": "d", "use_peft": True},
    "llama-factory": {"model_name_or_path": "m", "stage": "dpo", "dataset": "d"},
    "axolotl": {"base_model": "m", "rl": "dpo", "adapter": "lora", "datasets": [{"path": "d"}]},
}
FURTHER = (
    "batch_size", "cpo_alpha", "dataset", "dataset_config", "dataset_configs", "dataset_dir", "dataset_mixer",
    "dataset_mixture", "dataset_name", "dataset_splits", "datasets", "disable_dropout", "gradient_accumulation_steps",
    "load_in_4bit", "lora_dropout", "lora_target", "lora_target_linear", "lora_target_modules", "loss_weights",
    "max_steps", "optim", "optimizer", "orpo_alpha", "quantization_bit", "rl", "save_steps", "save_total_limit",
    "stage", "trl", "use_peft", "use_weighting", "warmup_ratio", "warmup_steps",
)  # fmt: skip
FORMS = (
    "auto", "many", "0.5", True, -1, 0, 1.5, float("inf"), [], [None], ["a"], [{"path": {}}], {"a": "b"}, {"beta": []},
    {"datasets": [{"id": "a", "weight": []}]},
)  # fmt: skip


@pytest.mark.parametrize("tool", BASES)
def test_no_value_of_a_known_key_is_more_than_one_message(tmp_path: Path, tool: Tool) -> None:
    """Carried over, named with its reason, or refused in one line: whatever stands there."""
    source, target = tmp_path / "theirs.json", tmp_path / "recipe.toml"
    errors: list[UserError] = []
    n_written = 0
    for key in sorted({*PLAIN[tool], *TRAINER, *DEFAULTS[tool], *FURTHER}):
        for value in FORMS:
            source.write_text(json.dumps(BASES[tool] | {key: value}))
            try:
                convert.main(str(source), to=str(target))
            except UserError as error:
                errors.append(error)
            else:
                resolve(read_file(target))
                target.unlink()
                n_written += 1
    assert not target.exists()
    assert min(n_written, len(errors)) > 100
    assert all(error.remedy and "\n" not in error.message for error in errors)


@pytest.mark.parametrize("key", ["gradient_accumulation_steps", "learning_rate", "warmup_steps", "max_length"])
def test_what_deepspeed_fills_in_counts_as_left_out(tmp_path: Path, key: str) -> None:
    plain, _result = converted("model_name_or_path: m\ndataset_name: d\n", tmp_path)
    (tmp_path / "auto").mkdir()
    ours, result = converted(f"model_name_or_path: m\ndataset_name: d\n{key}: auto\n", tmp_path / "auto")
    assert ours == plain
    assert "filled in by DeepSpeed" in result.lost_keys[key]
    assert key not in [theirs for theirs, _ in result.key_pairs]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("gradient_accumulation_steps: many", "gradient_accumulation_steps is 'many', and has to be a number"),
        ("lora_r: 1.5", "lora_r is 1.5, and has to be a whole number"),
        ("loss_weights: 2", "loss_weights is 2, and has to be a list"),
        ("dataset_mixer: a/b", "dataset_mixer is 'a/b', and has to be a table of keys"),
        ("datasets: [a/b]", "datasets is 'a/b', and has to be a table of keys"),
        ("lora_target_modules: {q: 1}", "lora_target_modules is {'q': 1}, and has to be a list"),
    ],
)
def test_a_value_of_another_form_is_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        converted(f"model_name_or_path: m\ndataset_name: d\nuse_peft: true\n{line}\n", tmp_path)
    assert caught.value.message == message
    assert "leave" in caught.value.remedy
