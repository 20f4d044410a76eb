"""What both sides train on: model shapes, pairs with the lengths of real data sets, and the arithmetic they cost.

Plain Python, so that either side's interpreter can import it. Dims: P pairs, R = 2P responses.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

EOS = 1
CAP = 512


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder with random weights and tied embeddings."""

    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_heads: int

    def build(self, family: str = "qwen2") -> Any:
        """The fp32 model, the same weights every time."""
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        torch.manual_seed(0)
        config = AutoConfig.for_model(
            family,
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            intermediate_size=self.intermediate,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.key_heads,
            tie_word_embeddings=True,
            max_position_embeddings=2048,
            bos_token_id=None,
            eos_token_id=EOS,
            pad_token_id=2,
        )
        return AutoModelForCausalLM.from_config(config)

    def training_operations(self, pairs: list[TokenIds]) -> float:
        """Floating-point operations that training on the pairs needs, each prompt once, nothing computed twice.

        Forward, two a multiplication: every token through the layers' matrices, every token against the tokens it
        sees (scores and values), every response token through the head. Backward is twice that.
        """
        width = self.hidden // self.heads
        matrices = 2 * self.hidden * (self.hidden + self.key_heads * width) + 3 * self.hidden * self.intermediate
        tokens = sum(map(len, (ids for pair in pairs for ids in pair)))
        seen = sum(_seen(len(prompt), len(chosen), len(rejected)) for prompt, chosen, rejected in pairs)
        responses = sum(len(chosen) + len(rejected) for _, chosen, rejected in pairs)
        layers = self.layers * (tokens * matrices + 2 * seen * self.hidden)
        return 3 * 2.0 * (layers + responses * self.hidden * self.vocabulary)


def _seen(prompt: int, *responses: int) -> int:
    """(row, visible row) couples of one prompt group."""
    return prompt * (prompt + 1) // 2 + sum(n * prompt + n * (n + 1) // 2 for n in responses)


SHAPES = {
    "tiny": Shape(2000, 64, 128, 2, 2, 1),
    "60m": Shape(38_000, 448, 2432, 12, 7, 1),
    "qwen2.5-0.5b": Shape(151_936, 896, 4864, 24, 14, 2),
}

TokenIds = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]

# (median, sigma) of a lognormal in tokens: prompt, chosen, rejected. Means, capped: about 170, 275, 275; 120, 60, 60;
# 400, 60, 60.
LENGTHS = {
    "ultrafeedback": ((140, 0.7), (235, 0.6), (235, 0.6)),
    "hh": ((95, 0.7), (50, 0.6), (50, 0.6)),
    "long-prompt": ((420, 0.3), (50, 0.6), (50, 0.6)),
    "tiny": ((20, 0.5), (20, 0.5), (20, 0.5)),
}


def make_pairs(count: int, *, lengths: str, vocabulary: int, seed: int = 0) -> list[TokenIds]:
    """`count` pairs of random tokens. Lengths are the lognormal's own quantiles, shuffled, so that few pairs have the
    spread of many; responses end with `EOS`, which occurs nowhere else."""
    generator = random.Random(seed)
    columns = []
    for median, sigma in LENGTHS[lengths]:
        quantiles = [NormalDist().inv_cdf((i + 0.5) / count) for i in range(count)]
        column = [min(CAP, max(8, round(median * math.exp(sigma * z)))) for z in quantiles]
        generator.shuffle(column)
        columns.append(column)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(generator.randrange(3, vocabulary) for _ in range(n))

    return [(ids(p), (*ids(c - 1), EOS), (*ids(r - 1), EOS)) for p, c, r in zip(*columns, strict=True)]


def choose_active(pairs: list[TokenIds], *, rate: float, side: str = "both") -> list[bool]:
    """Which of the 2P responses (chosen 2p, rejected 2p + 1) keep a gradient: of many draws, the one whose share of all
    response tokens is nearest to `rate`. `side` "chosen": chosen responses only, as training saturates; at most half.
    """
    sizes = [len(ids) for _, chosen, rejected in pairs for ids in (chosen, rejected)]
    best, nearest = [False] * len(sizes), rate * sum(sizes)
    for seed in range(200):
        candidates = [r for r in range(len(sizes)) if side == "both" or r % 2 == 0]
        random.Random(seed).shuffle(candidates)
        active, left = [False] * len(sizes), rate * sum(sizes)
        for r in candidates:
            if abs(left - sizes[r]) < abs(left):
                active[r] = True
                left -= sizes[r]
        if abs(left) < abs(nearest):
            best, nearest = active, left
    return best


def as_text(pair: TokenIds) -> dict[str, str]:
    """The pair as words that `tokenizer` reads back as the same ids."""
    prompt, chosen, rejected = (" ".join(map(_word, ids)) for ids in pair)
    return {"prompt": prompt + " ", "chosen": chosen, "rejected": rejected}


def _word(i: int) -> str:
    """Special tokens are found anywhere in a text, so theirs is no beginning of another word."""
    return f"<{i}>" if i < 3 else f"w{i}"


def tokenizer(vocabulary: int) -> Any:
    """One word, one id."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({_word(i): i for i in range(vocabulary)}, unk_token=_word(0)))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token=_word(EOS), pad_token=_word(2), unk_token=_word(0))
