#!/usr/bin/env bash
# TRL's DPO, given a model with a PiSSA or OLoRA adapter, trains another model, and saves an adapter that is a third.
#
# Guess:     DPOTrainer(model=PeftModel) goes on from the adapter that it is given: the model is what it was until the
#            first step, and what save_model writes comes back as the model that was trained.
# Versions:  trl 1.16.0, peft 0.21.2, transformers 5.23.0, datasets 5.2.0, accelerate 1.15.0, torch 2.13.0 (CPU).
# Behaviour: for its reference the trainer adds a second adapter, "ref", with the first one's configuration, and copies the
#            first one's matrices into it. PiSSA and OLoRA take what an adapter starts with out of the base when it is
#            added: here it is taken out of the residual for a second time, and A and B are then overwritten. Policy
#            and reference are the same wrong model, so the first loss is ln 2, the first rewards are 0 and nothing looks
#            odd. The saved adapter, loaded on its base, meets the right residual again, and is neither the model that
#            was trained nor the one that was given. KTOTrainer does the same. PEFT warns of two such adapters in
#            load_adapter; add_adapter, which the trainers call, is silent. A plain LoRA adapter comes through.
# Seen:      largest difference of a logit, made by the trainer's construction, by three steps of training, and by saving
#            and loading: plain LoRA 0e+00, 7e-03, 0e+00; pissa 2e+00, 1e-02, 2e+00; olora 3e+00, 3e-02, 3e+00. By the
#            construction of KTO's trainer: 0e+00, 2e+00, 3e+00. First loss of DPO 0.6931 in all.
# The way out: merge_and_unload first, and a new adapter from the trainer's peft_config; or save with
#            path_initial_model_for_weight_conversion, which makes a plain LoRA adapter.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$work/venv/bin/pip" install --quiet --disable-pip-version-check trl==1.16.0 peft==0.21.2 transformers==5.23.0 datasets==5.2.0 accelerate==1.15.0
OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 "$work/venv/bin/python" - "$work" 2> "$work/stderr" <<'PY' || { tail -5 "$work/stderr"; exit 1; }
import contextlib
import io
import random
import sys
import warnings

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

work = sys.argv[1]
vocabulary = {word: index for index, word in enumerate(["<pad>", "<eos>", "<unk>", *(f"w{n}" for n in range(60))])}
words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
set_seed(0)
LlamaForCausalLM(
    LlamaConfig(vocab_size=63, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                bos_token_id=None, eos_token_id=1, pad_token_id=0, initializer_range=0.1)
).save_pretrained(f"{work}/base")
draw = random.Random(0)


def text(length):
    return " ".join(f"w{draw.randrange(60)}" for _ in range(length))


pairs = [{"prompt": text(4) + " ", "chosen": text(10), "rejected": text(10)} for _ in range(16)]


def base():
    return LlamaForCausalLM.from_pretrained(f"{work}/base")


def adapted(folder):
    return PeftModel.from_pretrained(base(), folder, is_trainable=True)


@torch.no_grad()
def logits(model):
    training = model.training
    told = model.eval()(input_ids=torch.arange(3, 63)[None]).logits
    model.train(training)
    return told


def gap(one, other):
    return float((one - other).abs().max())


def trainer_of(kind, config, folder):
    return kind(
        model=adapted(folder),
        args=config(output_dir=f"{work}/out", report_to=[], use_cpu=True, bf16=False, max_steps=3, learning_rate=1e-4,
                    logging_steps=1, per_device_train_batch_size=16, disable_tqdm=True, save_strategy="no"),
        train_dataset=Dataset.from_list(pairs), processing_class=tokenizer,
    )


def gaps(start):
    folder = f"{work}/adapter-{start}"
    model = get_peft_model(base(), LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=start))
    with torch.no_grad():  # an earlier training
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.02)
    trained_before = logits(model)
    model.save_pretrained(folder)
    given = logits(adapted(folder))
    assert gap(given, trained_before) < 1e-3, "the adapter does not come back without TRL either"
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        trainer = trainer_of(DPOTrainer, DPOConfig, folder)
    assert not any("PiSSA" in str(warning.message) for warning in told), "a warning: this finding is out of date"
    begun = logits(trainer.model)
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.train()
    trained = logits(trainer.model)
    trainer.save_model(f"{work}/saved-{start}")
    saved = logits(adapted(f"{work}/saved-{start}"))
    kto = logits(trainer_of(KTOTrainer, KTOConfig, folder).model)
    first = trainer.state.log_history[0]["loss"]
    return gap(begun, given), gap(trained, begun), gap(saved, trained), gap(kto, given), first


for start in (True, "pissa", "olora"):
    made, training, saved, kto, first = gaps(start)
    print(f"{start}: making the trainer {made:.0e}, training {training:.0e}, saved {saved:.0e}, KTO's {kto:.0e}, loss {first:.4f}")
    assert abs(first - 0.6931) < 1e-3
    if start is True:
        assert max(made, saved, kto) < 1e-4, "a plain LoRA adapter does not come through either"
    else:
        assert min(made, saved, kto) > 0.1, "the base is left alone now: this finding is out of date"
PY
