"""Memory and time as arithmetic; the comparison with real runs is in tests/runtime/test_memory_prediction.py."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch

from trimtab.engine import memory, recompute
from trimtab.engine.head import chunk_rows, kept_rows
from trimtab.engine.memory import Shape
from trimtab.engine.out_of_memory import is_out_of_memory
from trimtab.engine.trainable import attach_lora

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
    assert shape.activations == 3 * (2 * 64 + 3 * 64 + 3 * 32 + 2 * 160)
    assert replace(shape, fused=False).activations == 3 * (7 * 64 + 3 * 64 + 3 * 32 + 4 * 160)
    assert shape.matmul_parameters == 3 * (2 * 64 * (64 + 32) + 3 * 64 * 160)


def test_lora_trains_rank_times_the_widths() -> None:
    with torch.device("meta"):
        shape = Shape.of(attach_lora(qwen(), rank=4, alpha=8.0))
    widths = (64 + 64) + 2 * (64 + 32) + (64 + 64) + 3 * (64 + 160)
    assert shape.trainable == 3 * 4 * widths


def test_autograd_keeps_what_the_formula_counts() -> None:
    """Numbers that two more layers save for backward a token, counted through autograd's own hooks, within a tenth."""
    from trimtab.engine.packing import Group, lay_out
    from trimtab.engine.scoring import Scorer

    sizes = []
    for layers in (3, 5):
        model = qwen(num_hidden_layers=layers)
        scorer = Scorer(model)
        own = {p.untyped_storage().data_ptr() for p in model.parameters()}
        shifted = [tuple(token + 80 * i for token in range(2, 82)) for i in range(4)]  # nothing shared
        groups = [Group(ids[:20], (ids[:40], ids[40:]), (2 * i, 2 * i + 1)) for i, ids in enumerate(shifted)]
        scorer.prepare(groups)
        kept: dict[int, tuple[int, torch.Tensor]] = {}

        def keep(tensor: torch.Tensor, kept: dict[int, tuple[int, torch.Tensor]] = kept) -> torch.Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
            return tensor

        one = lay_out(groups)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            scorer.logps(one)
        sizes.append(sum(size for at, (size, _) in kept.items() if at not in own))
    a_layer = Shape.of(model).activations / 5
    assert (sizes[1] - sizes[0]) / one.n_tokens / 4 == pytest.approx(2 * a_layer, rel=0.1)


@pytest.mark.parametrize("adapter", [False, True])
def test_parts_of_a_prediction_by_hand(adapter: bool) -> None:
    model = attach_lora(qwen(), rank=4, alpha=8.0) if adapter else qwen()
    shape = Shape.of(model)
    told = memory.predict(shape, dtype=torch.float32, device=CPU, pack_tokens=100, response_share=0.8, base=10_000_000)
    assert told.weights == 4 * shape.parameters
    assert told.gradients == 4 * shape.trainable
    assert told.optimizer == 8 * shape.trainable
    assert told.activations == int(4 * 100 * shape.activations * (1 + memory.SLACK["cpu"]))
    assert told.transient == 4 * 80 * 1000 + 3 * 4 * 80 * 64  # all logits, and three times the rows' hidden states
    assert told.base == 10_000_000 + memory.AT_WORK["cpu"]
    assert told.peak == told.base + told.weights + told.gradients + told.optimizer + told.activations + told.transient


def test_layers_that_run_again_by_hand() -> None:
    """on: a layer's input (64) of each, and one layer whole; selective: also the results of its seven products (q, k,
    v, o, gate, up, down) and of attention, and of one layer the rest."""
    shape = replace(Shape.of(qwen()), fused=False)
    layer = 7 * 64 + 3 * 64 + 3 * 32 + 4 * 160
    kept = 64 + (64 + 32 + 32 + 64 + 160 + 160 + 64) + 64
    assert shape.saved_activations("off") == 3 * layer
    assert shape.saved_activations("on") == 3 * 64 + layer
    assert shape.saved_activations("selective") == 3 * kept + layer - kept + 64


def test_bfloat16_weights_carry_fp32_copies() -> None:
    shape = Shape.of(qwen())
    told = memory.predict(shape, dtype=torch.bfloat16, device=CPU, pack_tokens=10, response_share=0.5, base=0)
    assert told.weights == told.gradients == 2 * shape.parameters
    assert told.optimizer == 12 * shape.parameters  # two moments and the copy
    # the copies' gradients come when the activations have gone
    assert told.transient + told.activations == 4 * shape.parameters


def test_frozen_embeddings_eight_bit_moments_and_four_bit_weights() -> None:
    from trimtab.engine import quantized
    from trimtab.engine.trainable import freeze_embeddings

    model, whole = qwen(), Shape.of(qwen())
    freeze_embeddings(model)
    frozen = Shape.of(model)
    assert whole.trainable - frozen.trainable == 1000 * 64
    assert not frozen.head_learns
    assert not frozen.adapter

    def told(shape: Shape, **options: bool) -> memory.Prediction:
        return memory.predict(
            shape, dtype=torch.float32, device=CPU, pack_tokens=10, response_share=0.5, base=0, **options
        )

    assert told(whole).peak - told(frozen).peak == 12 * 1000 * 64
    assert told(whole, eight_bit=True).optimizer == int(whole.trainable * 2 * (1 + 4 / 256))
    matrices = sum(module.weight.numel() for module in quantized.matrices(qwen()).values())
    assert matrices == 3 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 160)
    small = told(replace(Shape.of(attach_lora(qwen(), rank=4, alpha=8.0)), quantized=matrices))
    plain = told(Shape.of(attach_lora(qwen(), rank=4, alpha=8.0)))
    assert plain.weights - small.weights == pytest.approx(matrices * (4 - quantized.BYTES), abs=1)


def test_a_large_vocabulary_costs_what_may_be_kept_of_logits() -> None:
    wide = Shape.of(qwen(vocab_size=50_000))

    def passing(pack_tokens: int, mode: recompute.Mode = "off") -> int:
        told = memory.predict(
            wide,
            dtype=torch.float32,
            device=CPU,
            pack_tokens=pack_tokens,
            response_share=1.0,
            base=0,
            checkpointing=mode,
        )
        return told.transient - 3 * 4 * pack_tokens * 64

    assert passing(1_000) == passing(10_000) == 4 * kept_rows(50_000, 64, CPU) * 50_000
    assert passing(1_000, "on") == 4 * chunk_rows(50_000, CPU) * 50_000


def test_layers_run_again_only_as_far_as_the_longest_group_needs_it() -> None:
    shape = replace(Shape.of(qwen()), fused=False)

    def predicted(pack_tokens: int, mode: recompute.Mode) -> memory.Prediction:
        return memory.predict(
            shape,
            dtype=torch.float32,
            device=CPU,
            pack_tokens=pack_tokens,
            response_share=1.0,
            base=0,
            checkpointing=mode,
        )

    def fit(free: float, **given: Any) -> memory.Fit:
        return memory.fit(predicted, device=CPU, longest_group=700, free=int(free), **given)

    needs: dict[recompute.Mode, float] = {
        mode: predicted(700, mode).peak / memory.FREE_SHARE + 1 for mode in recompute.MODES
    }
    assert needs["off"] > needs["selective"] > needs["on"]
    for mode in recompute.MODES:
        assert fit(needs[mode]).checkpointing == mode
        assert fit(needs[mode]).pack_tokens == 700
    assert fit(0).checkpointing == "on"
    assert fit(1e12) == memory.Fit(memory.PACK_TOKENS["cpu"], "off")
    assert fit(1e12, checkpointing="on").checkpointing == "on"
    assert fit(0, checkpointing="off").checkpointing == "off"
    assert fit(needs["off"], pack_tokens=900) == memory.Fit(900, "selective")
    # a prompt with all its responses is computed once if a pack holds it: as far as memory does, and no further
    assert fit(1e12, largest_family=1500) == memory.Fit(1500, "off")
    assert fit(1e12, largest_family=800) == memory.Fit(memory.PACK_TOKENS["cpu"], "off")
    assert fit(1e12, largest_family=10**6) == memory.Fit(2 * memory.PACK_TOKENS["cpu"], "off")
    assert fit(needs["off"], largest_family=1500).pack_tokens == 700
    assert fit(1e12, largest_family=1500, pack_tokens=900).pack_tokens == 900


def test_the_pack_budget_follows_free_memory_and_holds_the_longest_group() -> None:
    shape = Shape.of(qwen())

    def chosen(free: int, longest: int = 10) -> int:
        return memory.choose_pack_tokens(shape, dtype=torch.float32, device=CPU, longest_group=longest, free=free)

    assert chosen(10**12) == memory.PACK_TOKENS["cpu"]
    assert chosen(0) == memory.LEAST_PACK
    assert chosen(0, longest=700) == 700
    libraries = int(memory.AT_WORK["cpu"] / memory.FREE_SHARE)
    budgets = [chosen(libraries + mega * 10**6) for mega in (5, 20, 40, 80, 1000)]
    assert budgets == sorted(budgets)
    assert len(set(budgets)) > 2
    for free in (libraries + 30 * 10**6, libraries + 60 * 10**6):
        told = memory.predict(
            shape, dtype=torch.float32, device=CPU, pack_tokens=chosen(free), response_share=1.0, base=0
        )
        assert told.peak <= memory.FREE_SHARE * free


def test_halving_stops_at_the_longest_group() -> None:
    assert memory.halve_pack_tokens(1000, longest_group=300) == 500
    assert memory.halve_pack_tokens(500, longest_group=300) == 300
    with pytest.raises(torch.OutOfMemoryError, match="no more"):
        _out_of_memory_at(300)


def _out_of_memory_at(pack_tokens: int) -> None:
    try:
        raise torch.OutOfMemoryError("no more")
    except torch.OutOfMemoryError:
        memory.halve_pack_tokens(pack_tokens, longest_group=300)


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
    by_hand = 1000 * (6 * shape.matmul_parameters + 6 * 64 * 1000 * 0.8) / 0.5e9
    assert base == pytest.approx(by_hand)
    forward = memory.seconds(shape, tokens=0, response_share=0.8, speed=1e9, forward_tokens=1000)
    assert forward == pytest.approx(base / 3)  # all weights learn: a backward pass is two forward
    again = memory.seconds(shape, tokens=1000, response_share=0.8, speed=1e9, checkpointing="on")
    assert again - base == pytest.approx(1000 * 2 * shape.matmul_parameters / 0.5e9)


def test_what_counts_as_out_of_memory() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("not enough memory"))
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


LIMITED = """
import random, resource, sys, torch
from trimtab import objectives
from trimtab.engine import allocation, gradient, memory
from trimtab.engine.optim import AdamW
from trimtab.engine.out_of_memory import is_out_of_memory
from trimtab.engine.scoring import Scorer
from trimtab.records import TokenPair
from transformers import Qwen2Config, Qwen2ForCausalLM

torch.manual_seed(0)
torch.set_num_threads(1)
allocation.settle_allocation(lean=True)  # freed blocks go back at once: the limit counts addresses, holes too
model = Qwen2ForCausalLM(Qwen2Config(
    vocab_size=300, hidden_size=128, intermediate_size=1024, num_hidden_layers=6, num_attention_heads=4,
    num_key_value_heads=2, tie_word_embeddings=True, initializer_range=0.1,
))
numbers = random.Random(0)
ids = lambda n: tuple(numbers.randrange(2, 300) for _ in range(n))
pairs = [TokenPair(str(i), ids(100), ids(200), ids(200)) for i in range(16)]
optimizer, scorer = AdamW(model, weight_decay=0.0), Scorer(model)

def passes(pack_tokens):
    optimizer.zero_gradients()
    gradient.accumulate(scorer, pairs, objective=objectives.make("dpo"), reference_logps_R=torch.zeros(32),
                        pack_tokens=pack_tokens)
    return torch.cat([p.grad.flatten() for p in model.parameters()])

truth = passes(500)
# The peak of the small packs, and not what is held after them: what a pass needs differs between processors.
peak = int(next(row.split()[1] for row in open("/proc/self/status") if row.startswith("VmPeak"))) * 1024
resource.setrlimit(resource.RLIMIT_AS, (peak + 300_000_000, resource.RLIM_INFINITY))
budget, halvings = 8000, 0
while True:
    try:
        found = passes(budget)
        break
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        budget = memory.halve_pack_tokens(budget, longest_group=500)
        halvings += 1
print(halvings, budget, float((found - truth).norm() / truth.norm()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS limits what Linux hands out")
def test_out_of_memory_on_a_cpu_halves_the_packs_and_gives_the_same_gradient() -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    halvings, budget, gap = done.stdout.split()
    assert int(halvings) >= 1
    assert 500 <= int(budget) < 8000
    assert float(gap) < 5e-6
