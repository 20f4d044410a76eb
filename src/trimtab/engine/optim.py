"""AdamW with decoupled decay, a schedule that is a pure function of the step, and clipping that tells the norm.

The optimizer always steps with zero, never `None`, gradients: PyTorch passes over a parameter whose gradient is `None`,
and its moments and decay would stand still in a batch in which every response is in the dead zone.

Parameters below fp32 are stepped in an fp32 copy and rounded back. At a learning rate of 1e-6 an update is thousands of
times smaller than bf16's spacing and would otherwise be lost whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from trimtab.engine import quantized
from trimtab.engine.finite import not_finite
from trimtab.engine.order import started_steps
from trimtab.engine.processes import ALONE, Processes, Shard

if TYPE_CHECKING:
    from trimtab.engine.sharding import Slices

Kind = Literal["adamw", "adamw_8bit"]
_Inner = Literal["adamw", "adamw_8bit", "adamw_sharded"]
Schedule = Literal["constant", "linear", "cosine"]


def learning_rate(step: int, *, total: int, peak: float, schedule: Schedule, warmup: float) -> float:
    """The rate of 0-based optimizer `step` of `total`.

    It rises in equal parts from zero (which no step uses) to `peak` over the first ⌈warmup · total⌉ steps, then
    stays, or falls towards zero (which no step uses either) in a line or half a cosine.
    """
    warmup_steps = started_steps(warmup, total)
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / (total - warmup_steps)
    match schedule:
        case "constant":
            return peak
        case "linear":
            return peak * (1.0 - progress)
        case "cosine":
            return peak * 0.5 * (1.0 + math.cos(math.pi * progress))


def decays(model: nn.Module) -> dict[str, bool]:
    """Trainable parameter name -> whether weight decay applies: to matrices, not to norms, biases or embeddings.

    A token that does not occur has no gradient, and decay alone would pull its embedding to zero. A head tied to the
    embedding is one parameter and is spared with it.
    """
    embedded = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    return {
        name: parameter.ndim >= 2 and id(parameter) not in embedded
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


AT_ONCE = 1 << 26
"""Values whose gradients are copied to fp32 at one time."""


class AdamW:
    """AdamW over the trainable parameters of a model, by name, with fp32 copies where they are needed.

    `kind` adamw is torch's own; adamw_8bit is that of bitsandbytes, which keeps the moments of tensors of at least
    4,096 values in 8 bit. Raises UserError where bitsandbytes is not installed.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        weight_decay: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        kind: Kind = "adamw",
        processes: Processes = ALONE,
        shard: Shard = "none",
    ) -> None:
        decay_names = decays(model)
        self._processes = processes
        self._slices: Slices | None = None
        if shard == "gradients" and not processes.alone:
            from trimtab.engine.sharding import Slices  # torch's engines for several processes take a second to load

            self._slices = Slices(model, processes)
        self.parameters: dict[str, nn.Parameter] = {
            name: parameter for name, parameter in model.named_parameters() if name in decay_names
        }
        assert self.parameters, "nothing to train"
        # what is updated: the parameters themselves, or this process's slices of them
        self._kept: Mapping[str, Tensor] = self._slices.own if self._slices else self.parameters
        self.masters: dict[str, Tensor] = {name: p.detach().float() for name, p in self._kept.items() if p.itemsize < 4}
        self._stepped: dict[str, Tensor] = {**self._kept, **self.masters}
        self._inner = [
            (
                names,
                _inner(
                    [
                        {"params": [self._stepped[n] for n in names if decay_names[n]], "weight_decay": weight_decay},
                        {"params": [self._stepped[n] for n in names if not decay_names[n]], "weight_decay": 0.0},
                    ],
                    betas=betas,
                    eps=eps,
                    kind="adamw_sharded" if shard == "optimizer" and not processes.alone else kind,
                ),
            )
            for names in self._bundles()
        ]
        self.zero_gradients()

    def zero_gradients(self) -> None:
        """Every trainable parameter has a gradient, and it is zero."""
        for parameter in self.parameters.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            else:
                parameter.grad.zero_()

    def sum_gradients(self) -> None:
        """Each process's gradients become the sum of all processes', or its slices of that."""
        if self._slices is not None:
            self._slices.reduce()
        else:
            self._processes.sum_into([p.grad for p in self.parameters.values() if p.grad is not None])

    def clip(self, max_norm: float) -> float:
        """Scale the gradients to a global 2-norm of at most `max_norm`; return the norm before.

        A norm that is not finite is returned as it is and nothing is scaled.
        """
        gradients = [tensor.grad for tensor in self._kept.values() if tensor.grad is not None]
        if self.masters:  # a norm in fp32 of what is not; get_total_norm would want copies
            norms = [torch.linalg.vector_norm(gradient, dtype=torch.float32) for gradient in gradients]
            norm = torch.linalg.vector_norm(torch.stack(norms))
        else:
            norm = torch.nn.utils.get_total_norm(gradients)
        if self._slices is not None:
            norm = self._slices.norm(norm)
        if torch.isfinite(norm):
            torch.nn.utils.clip_grads_with_norm_(list(self._kept.values()), max_norm, norm)
        return float(norm)

    def not_finite_gradients(self) -> list[str]:
        """Names of the parameters whose gradients, in whichever process, are not finite."""
        own = not_finite((name, t.grad) for name, t in self._kept.items() if t.grad is not None)
        anywhere = frozenset().union(*self._processes.gather(own))
        return [name for name in self.parameters if name in anywhere]

    def step(self, *, learning_rate: float) -> None:
        """One update with the gradients as they are."""
        for names, inner in self._inner:
            for group in inner.param_groups:
                group["lr"] = learning_rate
            self._widen(names)
            inner.step()
            # torch's fused step writes past autograd; copies of weights (`engine.mixed`) go by the version
            torch.autograd.graph.increment_version([self._stepped[name] for name in names])
            with torch.no_grad():
                for name in names:
                    if name in self.masters:
                        self._kept[name].copy_(self.masters[name])
                        self.masters[name].grad = None
        if self._slices is not None:
            self._gather(self._slices)

    def put(self, weights: Mapping[str, Tensor]) -> None:
        """The parameters become these. fp32 copies come with `load_state`."""
        with torch.no_grad():
            for name, tensor in self._kept.items():
                tensor.copy_(self._slices.part(weights[name]) if self._slices else weights[name])
        if self._slices is not None:
            self._gather(self._slices)

    def _gather(self, slices: Slices) -> None:
        slices.gather()
        for tensor in self._kept.values():
            tensor.grad = None
        torch.autograd.graph.increment_version(list(self.parameters.values()))  # gathering writes past autograd too

    def _widen(self, names: Sequence[str]) -> None:
        """The gradients of those that are stepped in fp32 copies."""
        for name in names:
            if name in self.masters:
                gradient = self._kept[name].grad
                assert gradient is not None, "zero_gradients() comes before backward"
                self.masters[name].grad = gradient.float()

    def _bundles(self) -> Iterator[list[str]]:
        """What is stepped together: all that is fp32 itself, then the others, few enough at a time."""
        if plain := [name for name in self.parameters if name not in self.masters]:
            yield plain
        bundle: list[str] = []
        for name, master in self.masters.items():
            if bundle and sum(self.masters[n].numel() for n in bundle) + master.numel() > AT_ONCE:
                yield bundle
                bundle = []
            bundle.append(name)
        if bundle:
            yield bundle

    def state(self) -> dict[str, Tensor]:
        """Moments, step counts and fp32 copies by `<parameter name>.<which>`; a parameter not stepped yet has none.

        Of the whole model, however many processes keep it; all must ask, and the first alone is told.
        """
        tensors: dict[str, Tensor] = {}
        for name in self.parameters:
            parts = self._processes.gather_to_first(self._state_of(name)) if self._is_shared else [self._state_of(name)]
            state = parts[0] if len(parts) == 1 else _union(parts)
            tensors |= {f"{name}.{part}": value for part, value in state.items()}
        return tensors

    @property
    def _is_shared(self) -> bool:
        """Whether this process has a part of the state only."""
        return self._slices is not None or any(_own(inner) is not inner for _, inner in self._inner)

    def _state_of(self, name: str) -> dict[str, Tensor]:
        """What this process has of one parameter's state."""
        target = self._stepped[name]
        inner = next(_own(inner) for names, inner in self._inner if name in names)
        master = {"master": self.masters[name]} if name in self.masters and self._owns(inner, target) else {}
        # the tables of the 8-bit numbers are one tensor for all parameters; what is saved has its own
        values = {k: v.clone() if k.startswith("qmap") else v for k, v in inner.state.get(target, {}).items()}
        return master | {part: torch.as_tensor(value) for part, value in values.items()}

    def _owns(self, inner: torch.optim.Optimizer, target: Tensor) -> bool:
        return any(target is parameter for group in inner.param_groups for parameter in group["params"])

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave. Raises KeyError when a master copy is missing."""
        with torch.no_grad():
            for name, master in self.masters.items():
                master.copy_(self._part(tensors[f"{name}.master"]))
        moments: dict[str, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            name, _, part = key.rpartition(".")
            if part != "master":
                moments.setdefault(name, {})[part] = self._part(value)
        for names, whole in self._inner:
            inner = _own(whole)
            inner.state.clear()
            for name in names:
                target = self._stepped[name]
                if name in moments and self._owns(inner, target):
                    inner.state[target] = _placed(moments[name], target.device)

    def _part(self, whole: Tensor) -> Tensor:
        """What this process keeps of a tensor of the state."""
        return whole if self._slices is None or whole.ndim == 0 else self._slices.part(whole)


def _own(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """That part of an optimizer which lies in this process: of `ZeroRedundancyOptimizer` its `optim`."""
    part: torch.optim.Optimizer = getattr(optimizer, "optim", optimizer)
    return part


def _union(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """What several processes have of one parameter's state: slices one behind the other, and whole what one has."""
    names = list(dict.fromkeys(name for part in parts for name in part))
    tensors = {name: [part[name] for part in parts if name in part] for name in names}
    return {name: of[0] if len(of) == 1 or of[0].ndim == 0 else torch.cat(of) for name, of in tensors.items()}


def _inner(
    groups: list[dict[str, Any]], *, betas: tuple[float, float], eps: float, kind: _Inner
) -> torch.optim.Optimizer:
    groups = [group for group in groups if group["params"]]
    if kind == "adamw_8bit":
        inner: torch.optim.Optimizer = quantized.library().optim.AdamW8bit(groups, betas=betas, eps=eps)
        return inner
    # fused: one pass over the state, no temporaries; torch has it for these three devices
    use_fused = groups[0]["params"][0].device.type in {"cpu", "cuda", "mps"}
    if kind == "adamw_sharded":
        from trimtab.engine.sharding import sharded_optimizer

        return sharded_optimizer(groups, betas=betas, eps=eps, fused=use_fused)
    return torch.optim.AdamW(groups, betas=betas, eps=eps, fused=use_fused)


def _placed(state: Mapping[str, Tensor], device: torch.device) -> dict[str, Any]:
    """One tensor's state on its device. A step count stays what its optimizer keeps: torch's fp32 or an integer."""
    return {
        part: value.to(device).clone() if part != "step" or value.is_floating_point() else int(value)
        for part, value in state.items()
    }
