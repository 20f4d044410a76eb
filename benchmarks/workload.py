"""What both sides train on: model shapes, pairs with the lengths of real data sets, and the arithmetic they cost.

Plain Python, so that either side's interpreter can import it. Dims: P pairs, R = 2P responses (chosen 2p, rejected
2p + 1).
"""

from __future__ import annotations

import argparse
import json
import math
import random
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import NormalDist
from typing import Any

EOS = 1
CAP = 512


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder with random weights and tied embeddings. `family`: by transformers' name."""

    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_heads: int
    family: str = "qwen2"

    @property
    def parameters(self) -> int:
        width = self.hidden // self.heads
        biases = self.hidden + 2 * self.key_heads * width if self.family == "qwen2" else 0
        norms = 2 * self.hidden
        return self.vocabulary * self.hidden + self.layers * (self._matrices + biases + norms) + self.hidden

    @property
    def _matrices(self) -> int:
        """Multiplications of one token in one layer."""
        width = self.hidden // self.heads
        return 2 * self.hidden * (self.hidden + self.key_heads * width) + 3 * self.hidden * self.intermediate

    def build(self, family: str = "", *, device: str = "cpu", dtype: str = "float32") -> Any:
        """The model, the same weights every time on a kind of device."""
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        torch.manual_seed(0)
        config = AutoConfig.for_model(
            family or self.family,
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
        with torch.device(device):
            return AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))

    def training_operations(self, pairs: list[TokenIds], *, frozen: bool = False) -> float:
        """Floating-point operations that training on the pairs needs, each prompt and each of its distinct responses
        once, nothing computed twice.

        Forward, two a multiplication: every token through the layers' matrices, every token against the tokens it
        sees (scores and values), every response token through the head. Backward is twice that; with frozen weights
        (an adapter, whose own products are left out) the products that give the weights' gradients are not needed.
        """
        texts = distinct_texts(pairs)
        responses = sum(map(sum, texts.values()))
        tokens = sum(map(len, texts)) + responses
        seen = sum(_seen(len(prompt), *sizes) for prompt, sizes in texts.items())
        weights = self.layers * tokens * self._matrices + responses * self.hidden * self.vocabulary
        attention = 2 * self.layers * seen * self.hidden
        return 2.0 * ((2 if frozen else 3) * weights + 3 * attention)


def distinct_texts(pairs: list[TokenIds]) -> dict[tuple[int, ...], list[int]]:
    """Each prompt once, with the lengths of its distinct responses."""
    texts: dict[tuple[int, ...], set[tuple[int, ...]]] = {}
    for prompt, *responses in pairs:
        texts.setdefault(prompt, set()).update(responses)
    return {prompt: sorted(map(len, responses)) for prompt, responses in texts.items()}


def _seen(prompt: int, *responses: int) -> int:
    """(row, visible row) couples of one prompt group."""
    return prompt * (prompt + 1) // 2 + sum(n * prompt + n * (n + 1) // 2 for n in responses)


SHAPES = {
    "tiny": Shape(2000, 64, 128, 2, 2, 1),
    "60m": Shape(38_000, 448, 2432, 12, 7, 1),
    "smollm2-135m": Shape(49_152, 576, 1536, 30, 9, 3, family="llama"),
    "qwen2.5-0.5b": Shape(151_936, 896, 4864, 24, 14, 2),
    "qwen2.5-1.5b": Shape(151_936, 1536, 8960, 28, 12, 2),
    "qwen2.5-3b": Shape(151_936, 2048, 11_008, 36, 16, 2),
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


def make_pairs(count: int, *, lengths: str, vocabulary: int, seed: int = 0, completions: int = 2) -> list[TokenIds]:
    """`count` pairs of random tokens. Lengths are the lognormal's own quantiles, shuffled, so that few pairs have the
    spread of many; responses end with `EOS`, which occurs nowhere else. With more than two completions a prompt every
    two of them are a pair, the earlier one chosen."""
    generator = random.Random(seed)
    prompts = count // math.comb(completions, 2)
    assert prompts * math.comb(completions, 2) == count, f"{count} pairs are not whole prompts"
    first, last = completions // 2, completions - completions // 2  # of a side's lengths each
    columns = []
    for (median, sigma), share in zip(LENGTHS[lengths], (1, first, last), strict=True):
        size = prompts * share
        quantiles = [NormalDist().inv_cdf((i + 0.5) / size) for i in range(size)]
        column = [min(CAP, max(8, round(median * math.exp(sigma * z)))) for z in quantiles]
        generator.shuffle(column)
        columns.append([column[i : i + share] for i in range(0, size, share)])

    def ids(n: int) -> tuple[int, ...]:
        return tuple(generator.randrange(3, vocabulary) for _ in range(n))

    pairs = []
    for (prompt_size,), *sides in zip(*columns, strict=True):
        prompt = ids(prompt_size)
        responses = [(*ids(n - 1), EOS) for side in sides for n in side]
        pairs += [(prompt, chosen, rejected) for chosen, rejected in combinations(responses, 2)]
    return pairs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What both sides train on, as `pairs_of` reads it."""
    parser.add_argument("--shape", required=True)
    parser.add_argument("--lengths", required=True)
    parser.add_argument("--pairs", type=int, required=True)
    parser.add_argument("--completions", type=int, default=2)
    parser.add_argument("--ids", type=Path, help="token ids of real pairs, instead of random ones")
    parser.add_argument("--model", type=Path, help="a folder with real weights of this shape, instead of random ones")


def pairs_of(told: argparse.Namespace) -> list[TokenIds]:
    """The pairs that the arguments name."""
    if told.ids is not None:
        rows = json.loads(told.ids.read_text(encoding="utf-8"))
        return [(tuple(prompt), tuple(chosen), tuple(rejected)) for prompt, chosen, rejected in rows]
    vocabulary = SHAPES[told.shape].vocabulary
    return make_pairs(told.pairs, lengths=told.lengths, vocabulary=vocabulary, completions=told.completions)


def model_of(told: argparse.Namespace, *, device: str = "cpu", dtype: str = "float32") -> Any:
    """The model that the arguments name: real weights, or random ones."""
    if told.model is None:
        return SHAPES[told.shape].build(device=device, dtype=dtype)
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(told.model, dtype=getattr(torch, dtype)).to(device)


@dataclass(frozen=True, slots=True)
class Fate:
    """What a step is to find and what it is told beforehand, one entry a response.

    active_R: the coefficient is not zero. screen_R: looked at without gradient first, since the forecast says inactive.
    held_R: not computed at all.
    """

    active_R: tuple[bool, ...]
    screen_R: tuple[bool, ...]
    held_R: tuple[bool, ...]

    def share(self, pairs: list[TokenIds], chosen_R: tuple[bool, ...]) -> float:
        """Share of all response tokens that belong to these responses."""
        sizes = response_sizes(pairs)
        return sum(n for n, on in zip(sizes, chosen_R, strict=True) if on) / sum(sizes)


def choose_fate(
    pairs: list[TokenIds], *, rate: float, side: str = "both", wrong: float = 0.0, held: float = 0.0
) -> Fate:
    """Which responses keep a gradient, and what the forecast says of each; shares are of tokens.

    rate: of all response tokens, active ones. `side` "chosen": chosen responses only, as training saturates.
    The forecast is what the last visit of the same pairs told, so inactive means inactive, but for `wrong` of all
    response tokens, where it says the contrary; at least one of those responses is active, and pays its promotion.
    held: of the inactive tokens, those shrunk away.
    """
    sizes = response_sizes(pairs)
    everyone = range(len(sizes))
    sided = [r for r in everyone if side == "both" or r % 2 == 0]
    active = set(sided) if rate >= 1 else _nearest(sizes, sided, rate * sum(sizes))
    mistaken = _nearest(sizes, list(everyone), wrong * sum(sizes), one_of=active) if wrong else set()
    inactive = [r for r in everyone if r not in active]
    shrunk = _nearest(sizes, inactive, held * sum(sizes[r] for r in inactive)) if held else set()
    return Fate(
        tuple(r in active for r in everyone),
        tuple(((r in active) == (r in mistaken)) and r not in shrunk for r in everyone),
        tuple(r in shrunk for r in everyone),
    )


def response_sizes(pairs: list[TokenIds]) -> list[int]:
    return [len(ids) for _, chosen, rejected in pairs for ids in (chosen, rejected)]


def _nearest(sizes: list[int], candidates: list[int], tokens: float, *, one_of: set[int] | None = None) -> set[int]:
    """Of many draws from the candidates, the one with nearly this many tokens; with `one_of`, the first is of those."""
    best: set[int] = set()
    nearest = math.inf if one_of else tokens
    for seed in range(200):
        drawn = list(candidates)
        random.Random(seed).shuffle(drawn)
        if one_of:
            first = next(r for r in drawn if r in one_of)
            drawn = [first, *(r for r in drawn if r != first)]
        taken, left = set(), tokens
        for r in drawn:
            if abs(left - sizes[r]) < abs(left) or (one_of and not taken):
                taken.add(r)
                left -= sizes[r]
        if abs(left) < nearest:
            best, nearest = taken, abs(left)
    return best


def as_text(pair: TokenIds) -> dict[str, str]:
    """The pair as words that `tokenizer` reads back as the same ids."""
    prompt, chosen, rejected = (" ".join(map(_word, ids)) for ids in pair)
    return {"prompt": prompt + " ", "chosen": chosen, "rejected": rejected}


def _word(i: int) -> str:
    """Special tokens are found anywhere in a text, so theirs is no beginning of another word."""
    return f"<{i}>" if i < 3 else f"w{i}"


def tokenizer(vocabulary: int, *, eos: int = EOS, pad: int = 2) -> Any:
    """One word, one id."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({_word(i): i for i in range(vocabulary)}, unk_token=_word(0)))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token=_word(eos), pad_token=_word(pad), unk_token=_word(0)
    )
