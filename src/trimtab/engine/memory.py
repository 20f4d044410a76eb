"""How much memory and time a run will take, said before anything runs; and what it did take.

    peak = what the process holds already + weights + gradients + optimizer + the largest of what comes and goes:
             activations of one pack + the head's logits             (before the backward pass begins)
             activations of one pack + one layer's own gradients     (as it begins)
             the input embedding's gradient, where it is made whole  (as it ends)
             fp32 gradients of the fp32 copies                       (in the update)

Only the pack counts, not the batch. The activations are what autograd keeps of one decoder layer in transformers, per
token and in numbers (counted with `torch.autograd.graph.saved_tensors_hooks` on Qwen2 and Llama): two norms keep
3 hidden each, rotary and attention 3 queries and 2 keys, a gated MLP 4 intermediate, and packing copies 1 hidden and
1 key. Architectures outside the attention interface (GPT-Neo) take the padded path and keep their scores besides.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trimtab.engine import recompute
from trimtab.engine.head import chunk_rows, kept_rows

# Freed blocks between live ones that the C allocator does not give back: a share of the activations.
SLACK = {"cpu": 0.25, "mps": 0.1, "cuda": 0.1}
FREE_SHARE = 0.6  # of free memory that a chosen pack budget may fill
PACK_TOKENS = {"cpu": 2048, "mps": 4096, "cuda": 16384}  # more than this gains nothing measurable on such a device
LEAST_PACK = 256


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
    eager_heads: int = 0  # heads whose score matrices are kept whole, where attention is not of the exchangeable kind

    @classmethod
    def of(cls, model: Any) -> Shape:
        """Of a transformers causal LM, with or without an adapter, also on the meta device."""
        from trimtab.engine.models import causal_lm_of

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
            eager_heads=0 if getattr(causal_lm_of(model), "_supports_attention_backend", True) else heads,
        )

    @classmethod
    def of_folder(
        cls, folder: Path, *, lora: Mapping[str, Any] | None = None, trust_remote_code: bool = False
    ) -> Shape:
        """Of the model in a folder, built without weights. `lora` are the keywords of `models.attach_lora`."""
        from transformers import AutoModelForCausalLM

        from trimtab.engine.describe import read_config
        from trimtab.engine.models import attach_lora

        config = read_config(folder, trust_remote_code=trust_remote_code)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
            return cls.of(model if lora is None else attach_lora(model, **lora))

    @property
    def activations(self) -> int:
        """Numbers that one token keeps alive between forward and backward."""
        return self.layers * self._layer

    @property
    def _layer(self) -> int:
        return 7 * self.hidden + 3 * self.queries + 3 * self.keys + 4 * self.intermediate

    def kept(self, checkpointing: recompute.Mode) -> int:
        """As `activations`, with layers that run again: what is kept of all, and all of the one that runs again."""
        match checkpointing:
            case "off":
                return self.activations
            case "on":
                return self.layers * self.hidden + self._layer
            case "selective":
                products = 3 * self.hidden + 2 * self.queries + 2 * self.keys + 2 * self.intermediate
                return self.layers * products + self._layer - products + self.hidden

    @property
    def multiplied(self) -> int:
        """Parameters that each token is multiplied with, the head left out: 2 operations each, forward."""
        attention = 2 * self.hidden * (self.queries + self.keys)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)


@dataclass(frozen=True, slots=True)
class Prediction:
    """Bytes at the peak of training. `base` is what the process holds before the model is there; `passing` the largest
    of what comes and goes beside the activations."""

    base: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    passing: int

    @property
    def peak(self) -> int:
        return self.base + self.weights + self.gradients + self.optimizer + self.activations + self.passing


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
) -> Prediction:
    """The peak of a training step whose largest pack has `pack_tokens` tokens, `response_share` of them responses.

    `longest_sequence` (tokens of a prompt and one response) matters where whole score matrices are kept: a padded pack
    then holds `pack_tokens` × `longest_sequence` scores a head and layer.
    """
    size = dtype.itemsize
    full = shape.trainable > shape.parameters // 2
    trained = size if full else 4  # adapters are kept in fp32
    scores = shape.eager_heads * longest_sequence * (1 if checkpointing == "on" else shape.layers)
    activations = int(pack_tokens * (shape.kept(checkpointing) + scores) * size * (1 + SLACK[device.type]))
    rows = int(pack_tokens * response_share)
    kept = kept_rows(shape.vocabulary, shape.hidden, device) if full else chunk_rows(shape.vocabulary, device)
    head = 4 * min(rows, kept) * shape.vocabulary + 3 * size * rows * shape.hidden
    layer = size * (pack_tokens * 2 * (shape.hidden + shape.intermediate) + shape.hidden * shape.intermediate)
    copies = 4 * shape.trainable if trained < 4 else 0  # their gradients in fp32, during the update
    return Prediction(
        base=base,
        weights=(shape.parameters - (0 if full else shape.trainable)) * size + (0 if full else 4 * shape.trainable),
        gradients=shape.trainable * trained,
        optimizer=(12 if trained < 4 else 8) * shape.trainable,
        activations=activations,
        passing=max(head, layer, copies - activations),
    )


def choose_pack_tokens(
    shape: Shape,
    *,
    dtype: torch.dtype,
    device: torch.device,
    longest_group: int,
    longest_sequence: int = 0,
    free: int | None = None,
) -> int:
    """The largest power of two, up to what gains nothing more, whose peak fills at most `FREE_SHARE` of free memory.

    Never less than the longest group, which a pack has to hold whole.
    """
    room = (free_bytes(device) if free is None else free) * FREE_SHARE
    budget = PACK_TOKENS[device.type]
    while budget > LEAST_PACK:
        told = predict(
            shape,
            dtype=dtype,
            device=device,
            pack_tokens=budget,
            response_share=1.0,
            base=0,
            longest_sequence=longest_sequence,
        )
        if told.peak <= room:
            break
        budget //= 2
    return max(budget, longest_group)


def halved(pack_tokens: int, *, longest_group: int) -> int:
    """The next budget to try after an out-of-memory error. Raises the error that is being handled when none is left."""
    if pack_tokens <= longest_group:
        raise  # noqa: PLE0704  # called while the out-of-memory error is handled: smaller packs cannot be had
    return max(pack_tokens // 2, longest_group)


def seconds(shape: Shape, *, tokens: int, response_share: float, speed: float) -> float:
    """Time of training on `tokens` at `speed` multiplications a second (see `matmul_speed`).

    Backward is twice the forward, or once where the weights are frozen; the head's logits are made twice.
    """
    passes = 3 if shape.trainable > shape.parameters // 2 else 2
    block = passes * 2 * shape.multiplied
    head = (passes + 1) * 2 * shape.hidden * shape.vocabulary * response_share
    return tokens * (block + head) / (speed * 0.5)  # half of a large product's speed: small ones and elementwise work


def matmul_speed(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a large matrix product here, from a fifth of a second of them."""
    n = 512 if device.type == "cpu" else 4096
    a, b = (torch.ones(n, n, device=device, dtype=dtype) for _ in range(2))
    (a @ b).sum().item()
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < 0.2:
        (a @ b).sum().item()
        done += 1
    return done * 2 * n**3 / (time.perf_counter() - start)


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
    told = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return told if sys.platform == "darwin" else told * 1024


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
    except (OSError, ValueError, StopIteration):
        import os

        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
