"""How much memory and time a run will take, said before anything runs; and what it did take.

    peak = what the process holds already + weights + gradients + optimizer + the largest of what comes and goes:
             activations of one pack + the head's logits             (before the backward pass begins)
             activations of one pack + one layer's own gradients     (as it begins)
             the input embedding's gradient, where it is made whole  (as it ends)
             fp32 gradients of the fp32 copies                       (in the update)

Only the pack counts, not the batch. The activations are what autograd keeps of one decoder layer in transformers, per
token and in numbers (counted with `torch.autograd.graph.saved_tensors_hooks` on Qwen2 and Llama): two norms keep
3 hidden each, rotary and attention 3 queries and 2 keys, a gated MLP 4 intermediate, and packing copies 1 hidden and
1 key. Where `engine.fused` computes them (fp32 on a CPU), norms keep 1 hidden each and a gated MLP 2 intermediate,
attention 3 queries and 2 keys, and packing copies 1 key. Architectures outside the attention interface (GPT-Neo) take
the padded path and keep their scores besides.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from trimtab.engine import fused, quantized, recompute, trainable
from trimtab.engine.adapter_reach import AdapterReach
from trimtab.engine.head import chunk_rows, kept_rows
from trimtab.engine.matmul import product
from trimtab.engine.optim import AT_ONCE

# Freed blocks between live ones that the C allocator does not give back: a share of the activations.
SLACK = {"cpu": 0.25, "mps": 0.1, "cuda": 0.1}
AT_WORK = {"cpu": 60_000_000, "mps": 60_000_000, "cuda": 0}  # what the libraries take when they first compute
LEAN_SLACK = 0.05  # where `settle_allocation(lean=True)` is on
EIGHT_BIT = 2 * (1 + 4 / 256)  # two moments, and a float for each block of 256
FREE_SHARE = 0.6  # of free memory that a chosen pack budget may fill
PACK_TOKENS = {"cpu": 1024, "mps": 4096, "cuda": 16384}  # more than this gains nothing measurable on such a device
# tokens that take the time of what a pack costs by itself: packs of 2,048 gained 2 to 3 % over one pair (900) a pack
PACK_COST = 40
FAMILY_PACKS = 2  # times `PACK_TOKENS`, for a prompt whose many responses are computed twice where a pack cuts them
LEAST_PACK = 256  # tokens; most single pairs are longer


@dataclass(frozen=True, slots=True)
class Shape:
    """What memory and time depend on. Widths are numbers a token: `queries` and `keys` over all heads."""

    parameters: int
    trainable: int
    layers: int
    hidden: int
    intermediate: int
    queries: int
    keys: int
    vocabulary: int
    tied: bool
    reach: AdapterReach | None = None  # None without an adapter
    head_learns: bool = True
    layers_rerun: bool = True  # the architecture has layers that can run again in the backward pass
    eager_heads: int = 0  # heads whose score matrices are kept whole, where attention is not of the exchangeable kind
    quantized: int = 0  # weights in 4 bit
    fused: bool = False  # norms and gated MLPs compute as in `engine.fused` on a CPU in fp32

    @classmethod
    def of(cls, model: Any) -> Shape:
        """Of a transformers causal LM, with or without an adapter, also on the meta device."""
        config = model.config.get_text_config()
        hidden = int(config.hidden_size)
        heads = int(config.num_attention_heads)
        width = int(getattr(config, "head_dim", None) or hidden // heads)
        return cls(
            parameters=sum(p.numel() for p in model.parameters()),
            trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
            layers=int(config.num_hidden_layers),
            hidden=hidden,
            intermediate=int(getattr(config, "intermediate_size", None) or 4 * hidden),
            queries=heads * width,
            keys=int(getattr(config, "num_key_value_heads", None) or heads) * width,
            vocabulary=int(config.vocab_size),
            tied=bool(getattr(config, "tie_word_embeddings", False)),
            reach=AdapterReach.of(model),
            head_learns=all(p.requires_grad for p in model.get_output_embeddings().parameters()),
            layers_rerun=recompute.possible(model),
            fused=fused.qualifies(model),
            eager_heads=0 if getattr(trainable.causal_lm_of(model), "_supports_attention_backend", True) else heads,
        )

    @classmethod
    def of_folder(
        cls,
        folder: Path,
        *,
        lora: Mapping[str, Any] | None = None,
        freeze_embeddings: bool = False,
        quantize: bool = False,
        trust_remote_code: bool = False,
    ) -> Shape:
        """Of the model in a folder, built without weights. `lora` are the keywords of `trainable.attach_lora`."""
        from transformers import AutoModelForCausalLM

        from trimtab.engine.describe import read_config

        config = read_config(folder, trust_remote_code=trust_remote_code)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
            small = sum(m.weight.numel() for m in quantized.matrices(model).values()) if quantize else 0
            if freeze_embeddings:
                trainable.freeze_embeddings(model)
            return replace(cls.of(model if lora is None else trainable.attach_lora(model, **lora)), quantized=small)

    def scoring(self) -> Shape:
        """As a reward model: one output a response in place of logits, and the language model's head learns nothing."""
        head = 0 if self.tied or self.adapter else self.hidden * self.vocabulary
        return replace(self, trainable=self.trainable - head + self.hidden, vocabulary=1, head_learns=False)

    @property
    def adapter(self) -> bool:
        return self.reach is not None

    @property
    def activations(self) -> int:
        """Numbers that one token keeps alive between forward and backward."""
        return self.layers * self._layer

    @property
    def _layer(self) -> int:
        if self.fused:
            return 2 * self.hidden + 3 * self.queries + 3 * self.keys + 2 * self.intermediate
        return 7 * self.hidden + 3 * self.queries + 3 * self.keys + 4 * self.intermediate

    def saved_activations(self, checkpointing: recompute.Mode) -> int:
        """As `activations`, with layers that run again: what is kept of all, and all of the one that runs again."""
        match checkpointing:
            case "off":
                return self.activations
            case "on":
                return self.layers * self.hidden + self._layer
            case "selective":
                products = 3 * self.hidden + 2 * self.queries + 2 * self.keys + 2 * self.intermediate
                return self.layers * products + max(0, self._layer - products) + self.hidden

    @property
    def matmul_parameters(self) -> int:
        """Parameters that each token is multiplied with, the head left out: 2 operations each, forward."""
        attention = 2 * self.hidden * (self.queries + self.keys)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)


@dataclass(frozen=True, slots=True)
class Prediction:
    """Bytes at the peak of training. `base` is what the process holds before the model is there; `transient` the
    largest of what comes and goes beside the activations."""

    base: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    transient: int
    loading_weights: int  # the weights as they are read, before they are quantized

    @property
    def peak(self) -> int:
        training = self.weights + self.gradients + self.optimizer + self.activations + self.transient
        return self.base + max(training, self.loading_weights)


def predict(
    shape: Shape,
    *,
    dtype: torch.dtype,
    device: torch.device,
    pack_tokens: int,
    response_share: float,
    base: int,
    longest_sequence: int = 0,
    checkpointing: recompute.Mode = "off",
    eight_bit: bool = False,
    mixed: bool = False,
) -> Prediction:
    """The peak of a training step whose largest pack has `pack_tokens` tokens, `response_share` of them responses.

    `longest_sequence` (tokens of a prompt and one response) matters where whole score matrices are kept: a padded pack
    then holds `pack_tokens` × `longest_sequence` scores a head and layer. `eight_bit`: the optimizer's moments.
    `mixed`: beside fp32 weights there are copies of the layers' matrices in bfloat16.
    """
    size = dtype.itemsize
    shape = replace(shape, fused=shape.fused and device.type == "cpu" and dtype == torch.float32)
    weight_size = 4 if shape.adapter else size  # adapters are kept in fp32
    scores = shape.eager_heads * longest_sequence * (1 if checkpointing == "on" else shape.layers)
    slack = LEAN_SLACK if checkpointing != "off" else SLACK[device.type]
    numbers = shape.saved_activations(checkpointing) + scores
    if mixed and not shape.adapter:  # inputs of products in bfloat16 beside what is fused
        numbers += shape.layers * (2 * shape.hidden + shape.queries + shape.intermediate) // 2
    activations = int(pack_tokens * numbers * size * (1 + slack))
    rows = int(pack_tokens * response_share)
    twice = checkpointing == "on" or not shape.head_learns  # no logits are kept until their coefficients are solved
    logit_rows = chunk_rows(shape.vocabulary, device) if twice else kept_rows(shape.vocabulary, shape.hidden, device)
    head = 4 * min(rows, logit_rows) * shape.vocabulary + 3 * size * rows * shape.hidden
    layer = size * (pack_tokens * 2 * (shape.hidden + shape.intermediate) + shape.hidden * shape.intermediate)
    wide = min(4 * shape.trainable, 4 * AT_ONCE) if weight_size < 4 else 0  # gradients in fp32 during the update
    frozen = shape.parameters - shape.trainable if shape.adapter else 0
    return Prediction(
        base=base + AT_WORK[device.type],
        weights=int(
            (shape.parameters - frozen) * weight_size
            + (frozen - shape.quantized) * size
            + shape.quantized * quantized.BYTES
            + (2 * shape.matmul_parameters if mixed else 0)
        ),
        gradients=shape.trainable * weight_size,
        optimizer=int(shape.trainable * ((EIGHT_BIT if eight_bit else 8) + (4 if weight_size < 4 else 0))),
        activations=activations,
        transient=max(head, layer, wide - activations),
        loading_weights=shape.parameters * size,
    )


@dataclass(frozen=True, slots=True)
class Fit:
    """How a run goes about its memory."""

    pack_tokens: int
    checkpointing: recompute.Mode


def fit(
    predict_peak: Callable[[int, recompute.Mode], Prediction],
    *,
    device: torch.device,
    longest_group: int,
    largest_family: int = 0,
    pack_tokens: int | None = None,
    checkpointing: recompute.Mode | None = None,
    free: int | None = None,
) -> Fit:
    """What is not given is chosen, so that the peak fills at most `FREE_SHARE` of free memory.

    Layers run again only as far as a pack of the longest group (or of the `pack_tokens` given) needs it; then the
    budget is the largest power of two that fits, up to what gains nothing more. It is never less than the longest
    group, which a pack has to hold whole; and where memory has it, it holds the largest family (a prompt with all its
    responses in a batch), up to `FAMILY_PACKS`. `predict_peak`: (pack tokens, checkpointing) → the peak without `base`.
    """
    room = (free_bytes(device) if free is None else free) * FREE_SHARE
    smallest = max(longest_group, pack_tokens or 0)
    modes = recompute.MODES if checkpointing is None else (checkpointing,)
    mode = next((mode for mode in modes if predict_peak(smallest, mode).peak <= room), modes[-1])
    if pack_tokens is None:
        pack_tokens = PACK_TOKENS[device.type]
        while pack_tokens > LEAST_PACK and predict_peak(pack_tokens, mode).peak > room:
            pack_tokens //= 2
        pack_tokens = max(pack_tokens, longest_group)
        whole = min(largest_family, FAMILY_PACKS * PACK_TOKENS[device.type])
        if whole > pack_tokens and predict_peak(whole, mode).peak <= room:
            pack_tokens = whole
    return Fit(pack_tokens, mode)


def choose_pack_tokens(
    shape: Shape,
    *,
    dtype: torch.dtype,
    device: torch.device,
    longest_group: int,
    largest_family: int = 0,
    longest_sequence: int = 0,
    free: int | None = None,
) -> int:
    """`fit` without checkpointing: the pack budget alone."""

    def predict_peak(pack_tokens: int, mode: recompute.Mode) -> Prediction:
        return predict(
            shape,
            dtype=dtype,
            device=device,
            pack_tokens=pack_tokens,
            response_share=1.0,
            base=0,
            longest_sequence=longest_sequence,
            checkpointing=mode,
        )

    return fit(
        predict_peak,
        device=device,
        longest_group=longest_group,
        largest_family=largest_family,
        checkpointing="off",
        free=free,
    ).pack_tokens


def halve_pack_tokens(pack_tokens: int, *, longest_group: int) -> int:
    """The next budget to try after an out-of-memory error. Raises the error that is being handled when none is left."""
    if pack_tokens <= longest_group:
        raise  # noqa: PLE0704  # called while the out-of-memory error is handled: smaller packs cannot be had
    return max(pack_tokens // 2, longest_group)


def seconds(
    shape: Shape,
    *,
    tokens: int,
    response_share: float,
    speed: float,
    checkpointing: recompute.Mode = "off",
    pack_tokens: int | None = None,
    forward_tokens: int = 0,
) -> float:
    """Time of training on `tokens` at `speed` operations a second (see `matmul_speed`), in packs of a size, and of
    forward passes alone over `forward_tokens`.

    Backward is twice the forward, or once where the weights are frozen; layers that run again cost one forward more.
    """
    passes = 2 if shape.adapter else 3
    pack = 0.0 if pack_tokens is None else PACK_COST / pack_tokens
    block = 2 * shape.matmul_parameters * (1 + pack)
    head = 2 * shape.hidden * shape.vocabulary * response_share
    step = (passes + (checkpointing == "on")) * block + (3 if shape.head_learns else 2) * head
    # half of a large product's speed: there are small ones and elementwise work
    return (tokens * step + forward_tokens * (block + head)) / (speed * 0.5)


def matmul_speed(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a large matrix product here, from a fifth of a second of them."""
    n = 512 if device.type == "cpu" else 4096
    a, b = (torch.ones(n, n, device=device, dtype=dtype) for _ in range(2))
    product(a, b).sum().item()
    n_products, start = 0, time.perf_counter()
    while time.perf_counter() - start < 0.2:
        product(a, b).sum().item()
        n_products += 1
    return n_products * 2 * n**3 / (time.perf_counter() - start)


def peak_bytes(device: torch.device) -> int:
    """Most memory held so far: of the process (CPU, MPS), or of the accelerator's tensors (CUDA)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _status("VmHWM") or _peak_of_usage()


def held_bytes() -> int:
    """Memory that this process holds now; the peak so far where the system does not tell."""
    return _status("VmRSS") or _peak_of_usage()


def _status(field: str) -> int:
    """Bytes of one line of Linux's own account of this process; 0 elsewhere."""
    try:
        rows = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(row.split()[1]) * 1024 for row in rows if row.startswith(f"{field}:"))
    except (OSError, ValueError, StopIteration):
        return 0


def _peak_of_usage() -> int:
    """The peak that POSIX tells. On Linux it may be that of the parent at the time it started us: hence `_status`."""
    try:
        import resource
    except ImportError:  # not POSIX
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def free_bytes(device: torch.device) -> int:
    """Memory that can still be taken, respecting a container's limit."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
    except (OSError, ValueError):  # no such group, or its limit is "max"
        limit = sys.maxsize
    return max(0, min(_available(), limit))


def _available() -> int:
    try:
        rows = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(row.split()[1]) * 1024 for row in rows if row.startswith("MemAvailable"))
    except (OSError, ValueError, StopIteration):  # not Linux
        import psutil

        return int(psutil.virtual_memory().available)
