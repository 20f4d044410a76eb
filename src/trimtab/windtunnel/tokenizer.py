"""The tiny model's own tokenizer: byte-level BPE learned from the world, digits one by one, ChatML around the turns.

Byte level means that every text round-trips, also text from outside the world; digits stand alone so that numbers
can be computed with. A world's word is one token.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from trimtab.windtunnel.demonstrations import answer, with_filler
from trimtab.windtunnel.values import VALUES
from trimtab.windtunnel.world import luck, tasks

if TYPE_CHECKING:
    from transformers import Qwen2Tokenizer

PAD: Final = "<|endoftext|>"
START: Final = "<|im_start|>"
END: Final = "<|im_end|>"
VOCABULARY: Final = 1024  # 256 bytes, three marks, and room for every word of the world as one token

CHAT_TEMPLATE: Final = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def corpus(n_tasks: int, *, seed: int) -> list[str]:
    """Prompts and right answers of the `train` split, and every value: what the tokenizer learns from."""
    rng = luck("trimtab tokenizer", seed)
    lines = ["system\nuser\nassistant\n"] * 50
    for task in tasks(n_tasks, seed=seed, split="train"):
        lines += [task.prompt, with_filler(answer(task, rng, mode="right"), rng)]
    lines += [f"{value} {value}" for values in VALUES.values() for value in values] * 20
    return lines


def build_tokenizer(*, seed: int = 0) -> Qwen2Tokenizer:
    """A fast tokenizer learned from nothing, in Qwen2's own pipeline. Deterministic by seed; takes about a second.

    The pipeline has to be Qwen2's because that is what `AutoTokenizer` puts around the vocabulary of a Qwen2 model,
    whatever the folder says. Its one loss is Unicode composition (NFC).
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    pipeline = Qwen2Tokenizer().backend_tokenizer
    bpe = Tokenizer(models.BPE())
    bpe.normalizer, bpe.pre_tokenizer = pipeline.normalizer, pipeline.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, START, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus(8000, seed=seed), trainer)
    bpe_model = json.loads(bpe.to_str())["model"]
    return Qwen2Tokenizer(
        vocab=bpe_model["vocab"],
        merges=[tuple(merge) for merge in bpe_model["merges"]],
        unk_token=PAD,
        pad_token=PAD,
        eos_token=END,
        extra_special_tokens=[START],
        chat_template=CHAT_TEMPLATE,
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )
