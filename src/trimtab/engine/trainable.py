"""What of a model learns: an adapter on it, what stays as it is, and the base seen through the adapter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn

from trimtab.engine import adapters
from trimtab.errors import ModelError


def attach_lora(
    model: Any,
    *,
    rank: int,
    alpha: float,
    dropout: float = 0.0,
    targets: Sequence[str] | Literal["all-linear"] = "all-linear",
    dora: bool = False,
    seed: int = 0,
) -> Any:
    """`model` with a fresh LoRA (or DoRA) adapter as a PeftModel; only the adapter learns. The start is set by `seed`.

    Raises ModelError where a name in `targets` is no module's.
    """
    from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        use_dora=dora,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        task_type="CAUSAL_LM",
    )
    linear = {n.rsplit(".", 1)[-1] for n, m in model.named_modules() if isinstance(m, (nn.Linear, Conv1D))}
    linear_modules = f"This model's linear modules are: {', '.join(sorted(linear))}; or say all-linear."
    with torch.random.fork_rng(), adapters.quiet_peft():
        torch.manual_seed(seed)
        try:
            adapted = get_peft_model(model, config).eval()
        except ValueError as error:
            raise ModelError(
                f"adapter.targets {list(targets)}: {str(error).splitlines()[0]}", remedy=linear_modules
            ) from error
    if not isinstance(targets, str):  # PEFT is content when one of the names is found
        reached = adapted.base_model.targeted_module_names
        if unknown := [name for name in targets if not any(f".{path}".endswith(f".{name}") for path in reached)]:
            raise ModelError(f"adapter.targets: no module is named {', '.join(unknown)}", remedy=linear_modules)
    return adapted


def freeze_embeddings(model: Any) -> None:
    """From here on the input embedding learns nothing; nor does a head tied to it. A head of its own still learns."""
    causal_lm_of(model).get_input_embeddings().weight.requires_grad_(False)


def lean_embedding(model: Any) -> None:
    """Lets the input embedding add its gradient to the rows that occurred, in place of making one of [V, H] a pack.

    A sparse gradient is added into the dense `.grad` that has to be there already (`optim.AdamW` sees to it). Same
    sums, in another order where a token occurs more than once. Without effect where the embedding learns nothing, on
    MPS, which has no such addition, and for the rare options whose gradient needs all occurrences at once.
    """
    embedding = causal_lm_of(model).get_input_embeddings()
    if (
        isinstance(embedding, nn.Embedding)
        and embedding.weight.requires_grad
        and embedding.weight.device.type in {"cpu", "cuda"}
        and embedding.max_norm is None
        and not embedding.scale_grad_by_freq
    ):
        embedding.sparse = True


@contextmanager
def reference_mode(model: Any) -> Iterator[None]:
    """Within, a model with an adapter computes as its base does; a plain model is left as it is."""
    if has_adapter(model):
        with model.disable_adapter():
            yield
    else:
        yield


def causal_lm_of(model: Any) -> Any:
    """The transformers model under a PEFT wrapper (adapters stay in place), or the model itself."""
    return model.get_base_model() if has_adapter(model) else model


def adapter_dropouts(model: nn.Module) -> tuple[nn.Module, ...]:
    """The dropout modules inside adapters that really drop something."""
    return tuple(
        module
        for name, module in model.named_modules()
        if "lora_dropout" in name and isinstance(module, nn.Dropout) and module.p > 0
    )


def has_adapter(model: Any) -> bool:
    """Whether it is one of PEFT's."""
    return hasattr(model, "peft_config") and hasattr(model, "disable_adapter")
