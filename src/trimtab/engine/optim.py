"""AdamW with decoupled decay, a schedule that is a pure function of the step, and clipping that tells the norm.

The optimizer always steps with zero, never `None`, gradients: PyTorch passes over a parameter whose gradient is `None`,
and its moments and decay would stand still in a batch in which every response is in the dead zone.

Parameters below fp32 are stepped in an fp32 copy and rounded back. At a learning rate of 1e-6 an update is thousands of
times smaller than bf16's spacing and would otherwise be lost whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from trimtab.engine import quantized
from trimtab.engine.order import started_steps

Kind = Literal["adamw", "adamw_8bit"]
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
    ) -> None:
        decay_names = decays(model)
        self.parameters: dict[str, nn.Parameter] = {
            name: parameter for name, parameter in model.named_parameters() if name in decay_names
        }
        assert self.parameters, "nothing to train"
        self.masters: dict[str, Tensor] = {
            name: p.detach().float() for name, p in self.parameters.items() if p.dtype != torch.float32
        }
        self._stepped: dict[str, Tensor] = {**self.parameters, **self.masters}
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
                    kind=kind,
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

    def clip(self, max_norm: float) -> float:
        """Scale the gradients to a global 2-norm of at most `max_norm`; return the norm before.

        A norm that is not finite is returned as it is and nothing is scaled.
        """
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        if self.masters:  # a norm in fp32 of what is not; get_total_norm would want copies
            norms = [torch.linalg.vector_norm(gradient, dtype=torch.float32) for gradient in gradients]
            norm = torch.linalg.vector_norm(torch.stack(norms))
        else:
            norm = torch.nn.utils.get_total_norm(gradients)
        if torch.isfinite(norm):
            torch.nn.utils.clip_grads_with_norm_(list(self.parameters.values()), max_norm, norm)
        return float(norm)

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
                        self.parameters[name].copy_(self.masters[name])
                        self.masters[name].grad = None

    def _widen(self, names: Sequence[str]) -> None:
        """The gradients of those that are stepped in fp32 copies."""
        for name in names:
            if name in self.masters:
                gradient = self.parameters[name].grad
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
        """Moments, step counts and fp32 copies by `<parameter name>.<which>`; a parameter not stepped yet has none."""
        tensors = {f"{name}.master": master for name, master in self.masters.items()}
        for names, inner in self._inner:
            for name in names:
                state = inner.state.get(self._stepped[name], {})
                # the tables of the 8-bit numbers are one tensor for all parameters; what is saved has its own
                values = {part: value.clone() if part.startswith("qmap") else value for part, value in state.items()}
                tensors |= {f"{name}.{part}": torch.as_tensor(value) for part, value in values.items()}
        return tensors

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave. Raises KeyError when a master copy is missing."""
        with torch.no_grad():
            for name, master in self.masters.items():
                master.copy_(tensors[f"{name}.master"])
        moments: dict[str, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            name, _, part = key.rpartition(".")
            if part != "master":
                moments.setdefault(name, {})[part] = value
        for names, inner in self._inner:
            inner.state.clear()
            for name in names:
                if name in moments:
                    inner.state[self._stepped[name]] = _placed(moments[name], self._stepped[name].device)


def _inner(
    groups: list[dict[str, Any]], *, betas: tuple[float, float], eps: float, kind: Kind
) -> torch.optim.Optimizer:
    groups = [group for group in groups if group["params"]]
    if kind == "adamw_8bit":
        inner: torch.optim.Optimizer = quantized.library().optim.AdamW8bit(groups, betas=betas, eps=eps)
        return inner
    # fused: one pass over the state, no temporaries; torch has it for these three devices
    use_fused = groups[0]["params"][0].device.type in {"cpu", "cuda", "mps"}
    return torch.optim.AdamW(groups, betas=betas, eps=eps, fused=use_fused)


def _placed(state: Mapping[str, Tensor], device: torch.device) -> dict[str, Any]:
    """One tensor's state on its device. A step count stays what its optimizer keeps: torch's fp32 or an integer."""
    return {
        part: value.to(device).clone() if part != "step" or value.is_floating_point() else int(value)
        for part, value in state.items()
    }
