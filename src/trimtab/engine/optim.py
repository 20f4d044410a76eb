"""AdamW with decoupled decay, a schedule that is a pure function of the step, and clipping that tells the norm.

The optimizer always steps with zero, never `None`, gradients: PyTorch passes over a parameter whose gradient is `None`,
and its moments and decay would stand still in a batch in which every response is in the dead zone.

Parameters below fp32 are stepped in an fp32 copy and rounded back. At a learning rate of 1e-6 an update is thousands of
times smaller than bf16's spacing and would otherwise be lost whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

Schedule = Literal["constant", "linear", "cosine"]


def learning_rate(step: int, *, total: int, peak: float, schedule: Schedule, warmup: float) -> float:
    """The rate of 0-based optimizer `step` of `total`.

    It rises in equal parts from zero (which no step uses) to `peak` over the first `ceil(warmup * total)` steps, then
    stays, or falls towards zero (which no step uses either) in a line or half a cosine.
    """
    rising = math.ceil(warmup * total)
    if step < rising:
        return peak * (step + 1) / (rising + 1)
    done = (step - rising) / (total - rising)
    match schedule:
        case "constant":
            return peak
        case "linear":
            return peak * (1.0 - done)
        case "cosine":
            return peak * 0.5 * (1.0 + math.cos(math.pi * done))


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


class AdamW:
    """torch's AdamW over the trainable parameters of a model, by name, with fp32 copies where they are needed."""

    def __init__(
        self,
        model: nn.Module,
        *,
        weight_decay: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        decaying = decays(model)
        self.parameters: dict[str, nn.Parameter] = {
            name: parameter for name, parameter in model.named_parameters() if name in decaying
        }
        assert self.parameters, "nothing to train"
        self.masters: dict[str, Tensor] = {
            name: p.detach().float() for name, p in self.parameters.items() if p.dtype != torch.float32
        }
        self._stepped: dict[str, Tensor] = {**self.parameters, **self.masters}
        groups = [
            {"params": [self._stepped[n] for n, d in decaying.items() if d], "weight_decay": weight_decay},
            {"params": [self._stepped[n] for n, d in decaying.items() if not d], "weight_decay": 0.0},
        ]
        device = next(iter(self.parameters.values())).device.type
        # fused: one pass over the state, no temporaries; torch has it for these three devices
        fused = device in {"cpu", "cuda", "mps"}
        self._inner = torch.optim.AdamW([g for g in groups if g["params"]], betas=betas, eps=eps, fused=fused)
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
        norm = torch.nn.utils.get_total_norm([g.float() for g in gradients] if self.masters else gradients)
        if torch.isfinite(norm):
            torch.nn.utils.clip_grads_with_norm_(list(self.parameters.values()), max_norm, norm)
        return float(norm)

    def step(self, *, learning_rate: float) -> None:
        """One update with the gradients as they are."""
        for group in self._inner.param_groups:
            group["lr"] = learning_rate
        for name, master in self.masters.items():
            gradient = self.parameters[name].grad
            assert gradient is not None, "zero_gradients() comes before backward"
            master.grad = gradient.float()
        self._inner.step()
        with torch.no_grad():
            for name, master in self.masters.items():
                self.parameters[name].copy_(master)
                master.grad = None

    def state(self) -> dict[str, Tensor]:
        """Moments, step counts and fp32 copies by `<parameter name>.<which>`; a parameter not stepped yet has none."""
        held = {f"{name}.master": master for name, master in self.masters.items()}
        for name, tensor in self._stepped.items():
            held |= {f"{name}.{which}": value for which, value in self._inner.state.get(tensor, {}).items()}
        return held

    def load_state(self, held: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave. Raises KeyError when a master copy is missing."""
        with torch.no_grad():
            for name, master in self.masters.items():
                master.copy_(held[f"{name}.master"])
        moments: dict[str, dict[str, Tensor]] = {}
        for key, value in held.items():
            name, _, which = key.rpartition(".")
            if which != "master":
                moments.setdefault(name, {})[which] = value
        self._inner.state.clear()
        for name, state in moments.items():
            tensor = self._stepped[name]
            # a step count stays where torch keeps it: beside the parameter when fused, fp32 always
            self._inner.state[tensor] = {which: value.to(tensor.device).clone() for which, value in state.items()}
