"""Which of a model's matrices an adapter changes, and which it leaves as they are.

PEFT's `all-linear` adapts what is a linear module. The experts of a mixture are parameters of a module of their own
kind: in some architectures (qwen3_moe, mixtral) PEFT knows their names and adapts them and the router, in others
(granitemoe, gpt_oss, qwen2_moe) it adapts neither, without a word. So the matrices are counted where the adapter sits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class AdapterReach:
    """Kinds of matrices, each named once: by the end of its name (`q_proj`), an expert's with the module that holds it
    (`experts.down_proj`). `weights` counts all of the base model, `weights_reached` those of the adapted matrices.
    """

    reached: tuple[str, ...]
    not_reached: tuple[str, ...]
    weights_reached: int
    weights: int

    @classmethod
    def of(cls, model: Any) -> AdapterReach | None:
        """Of a PeftModel, also on the meta device; None where the model has no adapter."""
        if not hasattr(model, "peft_config"):
            return None
        adapted_ids = _adapted_parameters(model)
        reached: dict[str, None] = {}  # in the model's order; a kind reached in some layers only stands in both
        not_reached: dict[str, None] = {}
        weights = weights_reached = 0
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:  # the adapter's own
                continue
            is_adapted = id(parameter) in adapted_ids
            weights += parameter.numel()
            weights_reached += parameter.numel() if is_adapted else 0
            if parameter.dim() > 1:
                (reached if is_adapted else not_reached).setdefault(_kind(name))
        return cls(tuple(reached), tuple(not_reached), weights_reached, weights)

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> AdapterReach:
        return cls(tuple(tree["reached"]), tuple(tree["not_reached"]), tree["weights_reached"], tree["weights"])

    def to_json(self) -> dict[str, Any]:
        return {
            "reached": list(self.reached),
            "not_reached": list(self.not_reached),
            "weights_reached": self.weights_reached,
            "weights": self.weights,
            "share": self.share,
        }

    @property
    def share(self) -> float:
        """Of the base model's weights, those in adapted matrices."""
        return self.weights_reached / self.weights

    @property
    def sentence(self) -> str:
        """For `plan` and the report."""
        whole = [kind for kind in self.reached if kind not in self.not_reached]
        in_part = [kind for kind in self.reached if kind in self.not_reached]
        without = [kind for kind in self.not_reached if kind not in self.reached]
        places = [f"in {', '.join(whole)}"] if whole else []
        places += [f"in {', '.join(in_part)} of some layers"] if in_part else []
        exceptions = f"; not {', '.join(without)}" if without else ""
        return f"reaches {self.share:.1%} of the weights, {' and '.join(places)}{exceptions}"


def _adapted_parameters(model: Any) -> set[int]:
    """`id` of every parameter of the base that has a low-rank term beside it."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return {
        # a layer around a parameter that is no module's `weight` says which one
        id(getattr(layer.get_base_layer(), getattr(layer, "parameter_name", "weight")))
        for layer in model.modules()
        if isinstance(layer, BaseTunerLayer)
    }


def _kind(name: str) -> str:
    """`base_model.model.model.layers.0.mlp.experts.base_layer.down_proj` → `experts.down_proj`."""
    *parents, last = [part for part in name.removesuffix(".weight").split(".") if part != "base_layer"]
    holder = next((part for part in reversed(parents) if "expert" in part), None)
    return last if holder is None else f"{holder}.{last}"
