"""Memory and time as arithmetic; the comparison with real runs is in tests/stages/test_memory_prediction.py."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from trimtab.engine import memory
from trimtab.engine.memory import Shape
from trimtab.engine.models import attach_lora

CPU = torch.device("cpu")


def qwen(**settings: int) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    shape = {
        "vocab_size": 1000, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True,
    }  # fmt: skip
    return Qwen2ForCausalLM(Qwen2Config(**(shape | settings)))


def test_shape_by_hand() -> None:
    """Embedding 1000·64; a layer: q 64·64+64, k and v 64·32+32, o 64·64, MLP 3·64·160, norms 2·64; last norm 64."""
    shape = Shape.of(qwen())
    layer = (64 * 64 + 64) + 2 * (64 * 32 + 32) + 64 * 64 + 3 * 64 * 160 + 2 * 64
    assert shape.parameters == shape.trainable == 64_000 + 3 * layer + 64
    assert (shape.queries, shape.keys, shape.layers, shape.tied) == (64, 32, 3, True)
    assert shape.activations == 3 * (7 * 64 + 3 * 64 + 3 * 32 + 4 * 160)
    assert shape.multiplied == 3 * (2 * 64 * (64 + 32) + 3 * 64 * 160)


def test_lora_trains_rank_times_the_widths() -> None:
    with torch.device("meta"):
        shape = Shape.of(attach_lora(qwen(), rank=4, alpha=8.0))
    widths = (64 + 64) + 2 * (64 + 32) + (64 + 64) + 3 * (64 + 160)
    assert shape.trainable == 3 * 4 * widths


def test_autograd_keeps_what_the_formula_counts() -> None:
    """Numbers saved for backward a token, counted through autograd's own hooks, within a tenth."""
    from trimtab.engine.packing import Group, lay_out
    from trimtab.engine.scoring import Scorer

    model = qwen()
    scorer = Scorer(model)
    ids = tuple(range(2, 42))
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    sizes = []
    for n in (2, 6):
        groups = [Group(ids[:20], (ids, ids), (2 * i, 2 * i + 1)) for i in range(n)]
        scorer.prepare(groups)
        kept: dict[int, tuple[int, torch.Tensor]] = {}

        def keep(tensor: torch.Tensor, kept: dict[int, tuple[int, torch.Tensor]] = kept) -> torch.Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
            return tensor

        one = lay_out(groups)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            scorer.logps(one)
        logits = 4 * len(one.targets_N) * 1000  # few enough here for the head to keep them: told apart in `predict`
        sizes.append((one.n_tokens, sum(size for at, (size, _) in kept.items() if at not in own) - logits))
    (few, low), (many, high) = sizes
    assert (high - low) / (many - few) / 4 == pytest.approx(Shape.of(model).activations, rel=0.1)


@pytest.mark.parametrize("adapter", [False, True])
def test_parts_of_a_prediction_by_hand(adapter: bool) -> None:
    model = attach_lora(qwen(), rank=4, alpha=8.0) if adapter else qwen()
    shape = Shape.of(model)
    told = memory.predict(shape, dtype=torch.float32, device=CPU, pack_tokens=100, response_share=0.8, base=10_000_000)
    assert told.weights == 4 * shape.parameters
    assert told.gradients == 4 * shape.trainable
    assert told.optimizer == 8 * shape.trainable
    assert told.activations == int(1.25 * 4 * 100 * shape.activations)
    assert told.head == 3 * 4 * 80 * 1000 + (0 if adapter else 2 * 4 * 1000 * 64)
    assert told.peak == 10_000_000 + told.weights + told.gradients + told.optimizer + told.activations + told.head


def test_bfloat16_weights_carry_fp32_copies() -> None:
    shape = Shape.of(qwen())
    told = memory.predict(shape, dtype=torch.bfloat16, device=CPU, pack_tokens=10, response_share=0.5, base=0)
    assert told.weights == told.gradients == 2 * shape.parameters
    assert told.optimizer == 16 * shape.parameters  # two moments, the copy, its gradient


def test_a_large_vocabulary_costs_one_chunk_of_logits() -> None:
    wide = Shape.of(qwen(vocab_size=50_000))
    heads = [
        memory.predict(wide, dtype=torch.float32, device=CPU, pack_tokens=n, response_share=1.0, base=0).head
        for n in (1_000, 100_000)
    ]
    assert heads[0] == heads[1]


def test_the_pack_budget_follows_free_memory_and_holds_the_longest_group() -> None:
    shape = Shape.of(qwen())

    def chosen(free: int, longest: int = 10) -> int:
        return memory.choose_pack_tokens(shape, dtype=torch.float32, device=CPU, longest_group=longest, free=free)

    assert chosen(10**12) == memory.PACK_TOKENS["cpu"]
    assert chosen(0) == memory.LEAST_PACK
    assert chosen(0, longest=700) == 700
    budgets = [chosen(mega * 10**6) for mega in (5, 20, 40, 80, 1000)]
    assert budgets == sorted(budgets)
    assert len(set(budgets)) > 2
    for free in (30 * 10**6, 60 * 10**6):
        told = memory.predict(
            shape, dtype=torch.float32, device=CPU, pack_tokens=chosen(free), response_share=1.0, base=0
        )
        assert told.peak <= memory.FREE_SHARE * free


def test_halving_stops_at_the_longest_group() -> None:
    assert memory.halved(1000, longest_group=300) == 500
    assert memory.halved(500, longest_group=300) == 300
    with pytest.raises(torch.OutOfMemoryError, match="no more"):
        _out_of_memory_at(300)


def _out_of_memory_at(pack_tokens: int) -> None:
    try:
        raise torch.OutOfMemoryError("no more")
    except torch.OutOfMemoryError:
        memory.halved(pack_tokens, longest_group=300)


def test_measuring() -> None:
    held = memory.held_bytes()
    block = torch.ones(50_000_000)
    assert 150e6 < memory.held_bytes() - held < 260e6
    assert memory.peak_bytes(CPU) >= held + 150e6
    del block
    assert memory.free_bytes(CPU) > 0
    assert 1e8 < memory.matmul_speed(CPU, torch.float32) < 1e14


def test_the_peak_is_our_own_and_not_the_parents() -> None:
    """`ru_maxrss` of a fresh process can be that of the process that started it."""
    block = torch.ones(100_000_000)
    script = "import torch; from trimtab.engine.memory import peak_bytes; print(peak_bytes(torch.device('cpu')))"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(told.stdout) < memory.held_bytes() - 4 * len(block) + 200e6


def test_time_grows_with_tokens_and_shrinks_with_speed() -> None:
    shape = Shape.of(qwen())
    base = memory.seconds(shape, tokens=1000, response_share=0.8, speed=1e9)
    assert memory.seconds(shape, tokens=2000, response_share=0.8, speed=1e9) == pytest.approx(2 * base)
    assert memory.seconds(shape, tokens=1000, response_share=0.8, speed=2e9) == pytest.approx(base / 2)
    by_hand = 1000 * (6 * shape.multiplied + 8 * 64 * 1000 * 0.8) / 0.5e9
    assert base == pytest.approx(by_hand)
