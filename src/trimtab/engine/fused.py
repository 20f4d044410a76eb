"""A decoder layer's work between its products, in fewer passes over memory: norms, rotations, gates, adapters.

On a CPU such work is bound by memory. transformers and PEFT spell it out, one operation and one new tensor a step; here
a few rows at a time go through all steps while they are in a core's cache, forward and backward, and less is kept:

    rotary     y = x · cos + turn(x) · sin                                      (Su et al. 2021, eq. 34)
    RMSNorm    y = x · r · g,  r = (mean x² + ε)^−½,  g the weight, or 1 + it   (Zhang and Sennrich 2019, eq. 4)
    SwiGLU     h = silu(a) · b                                                  (Shazeer 2020, eq. 6)
    LoRA       y = base(x) + s · B(A x), added to what the base gave            (Hu et al. 2021, eq. 3)

Normed rows and h are made again in the backward pass where only weight gradients need them (`matmul.remember`).

While packs are computed the `forward` of single modules is replaced, and the family's function for rotations. Each
qualifies by its parts, and by giving the same numbers; what does not qualify computes as it did. The scorer's
self-check then compares the whole model. Dims: T rows, A heads, D head width, H width.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import linear

from trimtab.engine.matmul import faster_linear, recipe_of, remember
from trimtab.engine.recompute import function_modes

BLOCK = 1 << 17
"""Numbers of a block: 512 KiB, of which a few fit into a core's second cache."""

Forward = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Fusion:
    """The modules of a model that compute as here, and how; none unless `of` finds some."""

    forwards: tuple[tuple[nn.Module, Forward], ...] = ()
    rotaries: tuple[tuple[ModuleType, Forward], ...] = ()

    @classmethod
    def of(cls, model: nn.Module, *, rerun: bool = False) -> Fusion:
        """Of a transformers model, with or without PEFT's LoRA around its linears.

        `rerun`: layers run again in the backward pass, and results of products that are kept for it are not written
        over.
        """
        forwards = ((module, _forward_of(module, rerun)) for module in model.modules())
        return cls(
            tuple((module, forward) for module, forward in forwards if forward is not None),
            tuple((code, rotate) for code in _code_of(model) if (rotate := _rotary_forward(code)) is not None),
        )

    @contextmanager
    def active(self) -> Iterator[None]:
        """Within, these modules compute as here."""
        if any("forward" in vars(module) for module, _ in self.forwards):  # within already, or someone else's
            yield
            return
        originals = [(code, getattr(code, _ROTARY)) for code, _ in self.rotaries]
        try:
            for module, forward in self.forwards:
                module.forward = forward
            for code, rotate in self.rotaries:
                setattr(code, _ROTARY, rotate)
            yield
        finally:
            for module, _ in self.forwards:
                vars(module).pop("forward", None)
            for code, original in originals:
                setattr(code, _ROTARY, original)


def qualifies(model: nn.Module) -> bool:
    """Whether norms and gated MLPs look as if they will compute as here, on a CPU in fp32: for predictions."""
    modules = list(model.modules())
    return any(type(module).__name__.endswith("RMSNorm") for module in modules) and any(map(_has_silu_gate, modules))


def _forward_of(module: nn.Module, rerun: bool) -> Forward | None:
    if _first_device(module) != "cpu" or "forward" in vars(module):
        return None
    name = type(module).__name__
    if name.endswith("RMSNorm"):
        return _norm_forward(module)
    if _has_silu_gate(module):
        return _mlp_forward(module)
    if name == "Linear" and hasattr(module, "lora_A"):
        return partial(_lora_forward, module, not rerun)
    if type(module) is nn.Linear and module.weight.requires_grad and module.weight.dtype == torch.float32:
        return partial(_linear_forward, module)
    return None


def _linear_forward(module: nn.Linear, x: Tensor) -> Tensor:
    """Through torch's function where a mode watches over it (`engine.mixed`, `matmul.faster_linears`)."""
    multiply = linear if function_modes() else faster_linear
    return multiply(x, module.weight, module.bias)


def _first_device(module: nn.Module) -> str:
    return next((parameter.device.type for parameter in module.parameters()), "")


def _same(ours: Tensor, truth: Tensor) -> bool:
    return ours.shape == truth.shape and torch.allclose(ours, truth, rtol=1e-5, atol=1e-5)


def _probe(width: int) -> Tensor:
    return torch.randn(3, width, generator=torch.Generator().manual_seed(0))


def _blocks(rows_TH: Tensor) -> Iterator[slice]:
    step = max(1, BLOCK // rows_TH.shape[1])
    return (slice(at, at + step) for at in range(0, len(rows_TH), step))


# --- RMSNorm -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def _norm_forward(module: Any) -> Forward | None:
    weight, epsilon = getattr(module, "weight", None), getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not isinstance(weight, nn.Parameter) or weight.dim() != 1 or weight.dtype != torch.float32:
        return None
    if not isinstance(epsilon, float) or len(list(module.parameters())) != 1:
        return None
    probe, other_weight = _probe(len(weight)), _probe(len(weight))[0]
    try:  # with another weight than that of a fresh model, which is 0 or 1
        truth = functional_call(module, {"weight": other_weight}, (probe,))
    except Exception:  # it wants more than rows
        return None
    for offset in (0.0, 1.0):
        if _same(rms_norm(probe, other_weight, epsilon, offset), truth):
            return lambda x: rms_norm(x, module.weight, epsilon, offset)
    return None


def rms_norm(x: Tensor, weight_H: Tensor, epsilon: float, offset: float = 0.0) -> Tensor:
    """x · (mean x² + ε)^−½ · (offset + weight), the mean over the last dimension [H]."""
    gain_H = weight_H.detach() + offset if offset else weight_H.detach()
    out, scales = _RMSNorm.apply(x, weight_H, gain_H, epsilon)  # type: ignore[no-untyped-call]
    return remember(out, _normed, x.detach(), scales, gain_H)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_H: Tensor, gain_H: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:  # noqa: ARG004  # the weight is there for its gradient
        rows_TH = x.reshape(-1, len(gain_H))
        norms = torch.linalg.vector_norm(rows_TH, dim=1, keepdim=True)
        scales = norms.square_().div_(len(gain_H)).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, gain_H, scales)
        ctx.mark_non_differentiable(scales)
        return _normed(x, scales, gain_H), scales

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, gain_H, scales = ctx.saved_tensors
        rows_TH, grad_TH = (t.reshape(-1, len(gain_H)) for t in (x, grads[0]))
        to_x, to_weight = torch.empty_like(rows_TH), torch.zeros_like(gain_H)
        for part in _blocks(rows_TH):
            rows, grad, scale = rows_TH[part], grad_TH[part], scales[part]
            both = rows * grad
            to_weight.addmv_(both.T, scale[:, 0])
            share = torch.mv(both, gain_H)[:, None] * scale.pow(3).div_(len(gain_H))
            torch.mul(grad, gain_H, out=to_x[part]).mul_(scale).addcmul_(rows, share, value=-1.0)
        return to_x.view(x.shape), to_weight if ctx.needs_input_grad[1] else None, None, None


def _normed(x: Tensor, scales: Tensor, gain_H: Tensor) -> Tensor:
    rows_TH = x.reshape(-1, len(gain_H))
    out = torch.empty_like(rows_TH)
    for part in _blocks(rows_TH):
        torch.mul(rows_TH[part], scales[part], out=out[part]).mul_(gain_H)
    return out.view(x.shape)


# --- gated MLPs --------------------------------------------------------------------------------------------------


def _has_silu_gate(module: nn.Module) -> bool:
    parts = ("gate_proj", "up_proj", "down_proj")
    return all(hasattr(module, part) for part in parts) and type(getattr(module, "act_fn", None)).__name__ in _SILU


_SILU = ("SiLU", "SiLUActivation")


@torch.no_grad()
def _mlp_forward(module: Any) -> Forward | None:
    base = getattr(module.gate_proj, "base_layer", module.gate_proj)
    if not isinstance(base, nn.Linear) or base.weight.dtype != torch.float32:
        return None
    probe = _probe(base.in_features)
    try:
        agrees = _same(_gated(module, probe), module(probe))
    except Exception:  # whatever an unknown module wants, it is asked as before
        return None
    return partial(_gated, module) if agrees else None


def _gated(module: Any, x: Tensor) -> Tensor:
    out: Tensor = module.down_proj(swiglu(module.gate_proj(x), module.up_proj(x)))
    return out


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) · up."""
    out: Tensor = _SwiGLU.apply(gate, up)  # type: ignore[no-untyped-call]
    return remember(out, _gate, gate.detach(), up.detach())


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return _gate(gate, up)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        width = gate.shape[-1]
        gate_TH, up_TH, grad_TH = (t.reshape(-1, width) for t in (gate, up, grads[0]))
        to_gate, to_up = torch.empty_like(gate_TH), torch.empty_like(gate_TH)
        for part in _blocks(gate_TH):
            gates, grad = gate_TH[part], grad_TH[part]
            torch.ops.aten.silu.out(gates, out=to_up[part]).mul_(grad)
            through = grad * up_TH[part]
            torch.ops.aten.silu_backward.grad_input(through, gates, grad_input=to_gate[part])
        return to_gate.view(gate.shape), to_up.view(gate.shape)


def _gate(gate: Tensor, up: Tensor) -> Tensor:
    gate_TH, up_TH = (t.reshape(-1, gate.shape[-1]) for t in (gate, up))
    out = torch.empty_like(gate_TH)
    for part in _blocks(gate_TH):
        torch.ops.aten.silu.out(gate_TH[part], out=out[part]).mul_(up_TH[part])
    return out.view(gate.shape)


# --- rotary positions --------------------------------------------------------------------------------------------

_ROTARY = "apply_rotary_pos_emb"  # as transformers' families name it, each in its own file


def _code_of(model: nn.Module) -> set[ModuleType]:
    """The files that the parts of a model come from, where they hold a function for rotations."""
    files = (sys.modules.get(type(module).__module__) for module in model.modules())
    return {file for file in files if file is not None and hasattr(file, _ROTARY)}


@torch.no_grad()
def _rotary_forward(code: ModuleType) -> Callable[..., Any] | None:
    original = getattr(code, _ROTARY)
    query, key = _probe(5 * 2 * 8).view(1, 3, 10, 8).transpose(1, 2), _probe(8).view(1, 1, 3, 8)
    angles = torch.cat([_probe(4), _probe(4)], dim=-1)[None]
    try:
        truth = original(query, key, angles.cos(), angles.sin())
        agrees = all(map(_same, _rotated(query, key, angles.cos(), angles.sin()), truth))
    except Exception:  # another function of that name
        return None

    def rotate(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *args: Any, **kwargs: Any) -> Any:
        plain = not (args or kwargs) and q.device.type == "cpu" and q.dtype == cos.dtype == torch.float32
        same_width = plain and q.shape[-1] == k.shape[-1] == cos.shape[-1] and cos.dim() == 3
        return _rotated(q, k, cos, sin) if same_width else original(q, k, cos, sin, *args, **kwargs)

    return rotate if agrees else None


def _rotated(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Query and key [1, A, T, D] with their halves turned by the angles [1, T, D]."""
    apply: Callable[..., Tensor] = _Rotation.apply
    return apply(query, cos, sin), apply(key, cos, sin)


class _Rotation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        half = x.shape[-1] // 2
        turned, by = torch.empty_like(x), sin[:, None]
        torch.mul(x, cos[:, None], out=turned)
        turned[..., :half].addcmul_(x[..., half:], by[..., :half], value=-1.0)
        turned[..., half:].addcmul_(x[..., :half], by[..., half:])
        return turned

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        grad, half = grads[0], grads[0].shape[-1] // 2
        back, by = torch.empty_like(grad), sin[:, None]
        torch.mul(grad, cos[:, None], out=back)
        back[..., :half].addcmul_(grad[..., half:], by[..., half:])
        back[..., half:].addcmul_(grad[..., :half], by[..., :half], value=-1.0)
        return back, None, None


# --- LoRA --------------------------------------------------------------------------------------------------------


def _lora_forward(module: Any, in_place: bool, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    adapter = None if args or kwargs else _plain_adapter(module, x)
    if adapter is None:
        out: Tensor = type(module).forward(module, x, *args, **kwargs)
        return out
    base: Tensor = module.base_layer(x)
    down, up = module.lora_A[adapter].weight, module.lora_B[adapter].weight
    return add_adapter(base, x, down, up, module.scaling[adapter], in_place=in_place)


def _plain_adapter(module: Any, x: Tensor) -> str | None:
    """The adapter, where there is one and PEFT would compute base(x) + scaling · B(A x) with it and nothing else."""
    names = [name for name in module.active_adapters if name in module.lora_A]
    if module.disable_adapters or module.merged or len(names) != 1:
        return None
    name: str = names[0]
    down, up, dropout = module.lora_A[name], module.lora_B[name], module.lora_dropout[name]
    plain = (
        name not in module.lora_variant
        and (isinstance(dropout, nn.Identity) or not dropout.training)
        and all(type(layer) is nn.Linear and layer.bias is None for layer in (down, up))
        and down.weight.dtype == up.weight.dtype == x.dtype == torch.float32
    )
    return name if plain else None


def add_adapter(
    base: Tensor, x: Tensor, down_RK: Tensor, up_NR: Tensor, scaling: float, *, in_place: bool = True
) -> Tensor:
    """base + scaling · (x · downᵀ) · upᵀ, written over `base` [..., N]; x [..., K], R the adapter's rank."""
    make, parts = recipe_of(x)
    parts = tuple(part.detach() for part in parts)
    in_place = in_place and not base._is_view()  # another function's result seen through a view is not written over
    out: Tensor = _Adapter.apply(base, x, down_RK, up_NR, scaling, in_place, make, *parts)  # type: ignore[no-untyped-call]
    return out


class _Adapter(torch.autograd.Function):
    @staticmethod
    def forward(  # torch's way to hand over what is not a tensor
        ctx: Any,
        base: Tensor,
        x: Tensor,
        down_RK: Tensor,
        up_NR: Tensor,
        scaling: float,
        in_place: bool,
        make: Callable[..., Tensor],
        *parts: Tensor,
    ) -> Tensor:
        inner_TR = torch.mm(x.flatten(0, -2), down_RK.T)
        ctx.save_for_backward(inner_TR, down_RK, up_NR, *parts)
        ctx.scaling, ctx.make = scaling, make
        rows_TN = base.flatten(0, -2)
        if not in_place:
            return torch.addmm(rows_TN, inner_TR, up_NR.T, alpha=scaling).view(base.shape)
        ctx.mark_dirty(base)
        rows_TN.addmm_(inner_TR, up_NR.T, alpha=scaling)
        return base

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        inner_TR, down_RK, up_NR, *parts = ctx.saved_tensors
        grad_TN = grads[0].flatten(0, -2)
        to_inner_TR = torch.mm(grad_TN, up_NR).mul_(ctx.scaling)
        to_up = torch.mm(grad_TN.T, inner_TR).mul_(ctx.scaling)
        to_down = torch.mm(to_inner_TR.T, ctx.make(*parts).flatten(0, -2))
        to_x = None
        if ctx.needs_input_grad[1]:
            to_x = torch.mm(to_inner_TR, down_RK).view(*grads[0].shape[:-1], down_RK.shape[1])
        return grads[0], to_x, to_down, to_up, *[None for _ in ctx.needs_input_grad[4:]]
