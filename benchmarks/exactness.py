"""Whether the engine computes what a plain loop computes: gradients and trajectories, way by way, on a device.

The truth is autograd end to end over one sequence at a time, with the model's own attention and its own logits, in the
same dtype; nothing of the engine is in it but the objective. Every check is one number against one limit; what breaks
is a row as well. Dims: R = 2P responses.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from step import Stepper
from trimtab.engine import checkpoint
from trimtab.engine.attention import ways_for
from trimtab.objectives import LogRatios
from workload import SHAPES, Fate, TokenIds, choose_fate, make_pairs

FP32 = 1e-4
"""Distance of two gradients, as a share of their length: rounding stays below 1e-5 (1e-6 on a CPU), a wrong mask or a
missing row is of the order of 1."""
BF16 = 1.5
"""How many times further from the fp32 gradient than the model's own bf16 pass."""
STEPS = 8


@dataclass(frozen=True)
class Check:
    """`value` must not exceed `limit`; None where nothing could be measured, and `note` says why."""

    name: str
    on: str
    value: float | None
    limit: float
    note: str = ""

    @property
    def passed(self) -> bool:
        return self.value is not None and self.value <= self.limit  # NaN exceeds everything

    def row(self) -> dict[str, Any]:
        return asdict(self) | {"passed": self.passed}


Rows = list[TokenIds]
Gradient = list[Tensor]


def checks(shape: str, *, device: str) -> Iterator[Check]:
    """All checks that a shape can bear: on "tiny" the trajectories too."""
    small = shape == "tiny"
    rows = make_pairs(
        6 if small else 2, lengths="tiny" if small else "ultrafeedback", vocabulary=SHAPES[shape].vocabulary
    )
    for lora in (False, True):
        on = f"{shape}, {'LoRA' if lora else 'full'}, fp32"
        yield from _gradients(_Bench(shape, device, rows, lora=lora), on)
        empty(device)
    yield from _bf16(shape, device, rows)
    empty(device)
    if small:
        yield from _trajectories(device, rows)


class _Bench:
    """One model in one dtype: gradients by the engine, and by the plain loop."""

    def __init__(self, shape: str, device: str, rows: Rows, *, dtype: str = "float32", lora: bool = False) -> None:
        self.rows, self.device = rows, device
        self.stepper = Stepper(SHAPES[shape], device=device, dtype=dtype, lora=lora)
        if lora:
            _away_from_zero(self.stepper.model)
        self.dense = choose_fate(rows, rate=1.0)
        self._truths: dict[Fate, Gradient] = {}

    def gradient(self, fate: Fate, *, screening: bool = False, pack_tokens: int = 1 << 14) -> Gradient:
        self.stepper.optimizer.zero_gradients()
        self.stepper.accumulate(self.rows, fate, pack_tokens=pack_tokens, screening=screening)
        return self._copied()

    def truth(self, fate: Fate) -> Gradient:
        if fate not in self._truths:
            self._truths = {fate: self._plain(fate)}  # one at a time: each is as large as the model
        return self._truths[fate]

    def _plain(self, fate: Fate) -> Gradient:
        stepper = self.stepper
        stepper.optimizer.zero_gradients()
        sums_R = torch.stack([self._sum(p, r) for p, *responses in self.rows for r in responses])
        reference_R = stepper.references(self.rows, fate).to(self.device)
        lengths_R = torch.tensor([len(r) for _, *rs in self.rows for r in rs], device=self.device)
        loss_P = stepper.objective.loss(
            LogRatios(
                policy_chosen=sums_R[0::2],
                policy_rejected=sums_R[1::2],
                reference_chosen=reference_R[0::2],
                reference_rejected=reference_R[1::2],
                chosen_lengths=lengths_R[0::2],
                rejected_lengths=lengths_R[1::2],
            )
        )
        loss_P.mean().backward()
        return self._copied()

    def _sum(self, prompt: tuple[int, ...], response: tuple[int, ...]) -> Tensor:
        ids = torch.tensor([[*prompt, *response]], device=self.device)
        logits = self.stepper.model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
        return logits.log_softmax(-1).gather(1, ids[0, len(prompt) :, None]).sum()

    def _copied(self) -> Gradient:
        return [p.grad.float().clone() for p in self.stepper.optimizer.parameters.values() if p.grad is not None]


def _gradients(bench: _Bench, on: str) -> Iterator[Check]:
    """The engine's ways in fp32 against the plain loop."""
    half = choose_fate(bench.rows, rate=0.5)
    wrong = choose_fate(bench.rows, rate=0.5, wrong=0.25)
    sided = choose_fate(bench.rows, rate=1.0, side="chosen")
    shrunk = choose_fate(bench.rows, rate=0.5, held=0.9)

    def check(name: str, fate: Fate, work: Callable[[], Gradient]) -> Check:
        return _measured(name, on, FP32, lambda: distance(work(), bench.truth(fate)))

    yield check("dense, packed", bench.dense, lambda: bench.gradient(bench.dense))
    yield check("dense, one pair a pack", bench.dense, lambda: bench.gradient(bench.dense, pack_tokens=1))
    with _rescored(bench, packed="off"):
        yield check("dense, padded", bench.dense, lambda: bench.gradient(bench.dense))
    with _small_chunks(bench):
        yield check("dense, head in chunks of 16 rows", bench.dense, lambda: bench.gradient(bench.dense))
    for mode in ("selective", "on"):
        with _rescored(bench, checkpointing=mode):
            name = f"dense, checkpointing {mode}"
            yield check(name, bench.dense, lambda: bench.gradient(bench.dense))
    for way, switched in attention_ways(bench.device, torch.float32).items():
        with switched:
            yield check(f"dense, attention by {way}", bench.dense, lambda: bench.gradient(bench.dense))
    for name, fate in (
        ("screened, half active", half),
        ("screened, a quarter of the forecasts wrong", wrong),
        ("screened, chosen active, rejected behind the kept prompt", sided),
        ("screened and shrunk, half active", shrunk),
    ):
        yield check(name, fate, lambda fate=fate: bench.gradient(fate, screening=True))


def _bf16(shape: str, device: str, rows: Rows) -> Iterator[Check]:
    """How far bf16 is from fp32: the engine's gradient against the model's own, attention way by attention way."""
    on = f"{shape}, full, bf16"
    fp32 = _Bench(shape, device, rows)
    dense = fp32.dense
    exact = fp32.truth(dense)
    del fp32
    empty(device)
    bench = _Bench(shape, device, rows, dtype="bfloat16")
    own = distance(bench.truth(dense), exact)
    note = f"the model's own bf16 gradient is off by {own:.1e}"

    def check(name: str, work: Callable[[], Gradient]) -> Check:
        return replace(_measured(name, on, BF16, lambda: distance(work(), exact) / own), note=note)

    yield check("times the model's own error, packed", lambda: bench.gradient(dense))
    for way, switched in attention_ways(device, torch.bfloat16).items():
        with switched:
            yield check(f"times the model's own error, attention by {way}", lambda: bench.gradient(dense))
    sided = choose_fate(rows, rate=1.0, side="chosen")
    packed = bench.gradient(sided)
    yield _measured(
        "screened against dense, chosen active",
        on,
        own,
        lambda: distance(bench.gradient(sided, screening=True), packed),
    )


def _trajectories(device: str, rows: Rows) -> Iterator[Check]:
    """Weights after some steps with updates, fp32: screened against dense; resumed against uninterrupted."""
    on, fate = "tiny, full, fp32", choose_fate(rows, rate=0.5)

    def trained(*, screening: bool, resumed: bool = False) -> Gradient:
        stepper = Stepper(SHAPES["tiny"], device=device)
        for step in range(STEPS):
            if resumed and step == STEPS // 2:
                stepper = _resumed(stepper, device)
            stepper.step(rows, fate, pack_tokens=256, screening=screening, learning_rate=1e-4)
        return [p.detach().clone() for p in stepper.model.parameters()]

    dense = trained(screening=False)
    yield _measured(
        f"weights after {STEPS} steps, screened", on, 1e-5, lambda: distance(trained(screening=True), dense)
    )
    # exact on a CPU; a GPU adds up in another order every time
    limit = 0.0 if device == "cpu" else 1e-5
    yield _measured(
        f"weights after {STEPS} steps, resumed half-way",
        on,
        limit,
        lambda: distance(trained(screening=False, resumed=True), dense),
    )


def _resumed(stepper: Stepper, device: str) -> Stepper:
    """What a new process would go on with: a fresh model, and all that a checkpoint holds."""
    fresh = Stepper(SHAPES["tiny"], device=device)
    with torch.no_grad():
        for parameter in fresh.model.parameters():
            parameter.zero_()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(Path(folder), step=1, optimizer=stepper.optimizer, identity={}, extra={})
        found, _ = checkpoint.find(Path(folder), identity={})
        assert found is not None, "the checkpoint that was just saved is found"
        checkpoint.load(found, fresh.optimizer)
    return fresh


def distance(ours: Gradient, truth: Gradient) -> float:
    """‖ours − truth‖ / ‖truth‖ over all tensors together."""
    assert len(ours) == len(truth), "the same tensors"
    apart = sum(float((a - b).double().square().sum()) for a, b in zip(ours, truth, strict=True))
    length = sum(float(b.double().square().sum()) for b in truth)
    return math.sqrt(apart / length) if length else math.nan


def attention_ways(device: str, dtype: torch.dtype) -> dict[str, AbstractContextManager[Any]]:
    """Name → a context in which packs are attended to that way. Those that this device and dtype can take."""
    *faster, plain = ways_for(torch.device(device), dtype)
    chosen = {way.name: (way, plain) for way in faster} | {plain.name: (plain,)}
    return {
        name: patch("trimtab.engine.self_check.ways_for", lambda *_, ways=ways: ways) for name, ways in chosen.items()
    }


@contextmanager
def _rescored(bench: _Bench, **options: Any) -> Iterator[None]:
    before = bench.stepper.scorer
    bench.stepper.rescore(**options)
    try:
        yield
    finally:
        bench.stepper.scorer = before
        bench.stepper.model.eval()  # checkpointed layers run again only while they are marked as training


@contextmanager
def _small_chunks(bench: _Bench) -> Iterator[None]:
    """After the self-check, which finds the head."""
    scorer = bench.stepper.scorer
    before = scorer.passes
    scorer.passes = replace(before, head=replace(before.head, rows_a_chunk=16, rows_kept=16))
    try:
        yield
    finally:
        scorer.passes = before


def _measured(name: str, on: str, limit: float, work: Callable[[], float]) -> Check:
    """A check that breaks fails by name, and the others still run."""
    try:
        return Check(name, on, work(), limit)
    except Exception as error:  # whatever it is, it is this check's result
        text = str(error).strip().splitlines() or [""]
        return Check(name, on, None, limit, f"{type(error).__name__}: {text[0]}")


def _away_from_zero(model: torch.nn.Module) -> None:
    """A fresh adapter's second matrix is zero, and with it half of the gradient."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))


def empty(device: str) -> None:
    """Give back what nothing points to any more."""
    import gc

    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
