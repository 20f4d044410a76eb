"""A LoRA adapter in a folder of its own, and the plain model that it makes of its base.

    adapter_config.json ── names ──> base        model = base + adapter, merged, and checked against the two apart

A merge is not always what PEFT computes before it: an adapter on one of two tied matrices changes the other when it is
folded in, and some initialisations rewrite the base. So tied matrices that an adapter touches are untied first, and the
logits of the merged model are compared with those of the adapter on its base; a merge that says something else is
refused by name.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trimtab import store
from trimtab.engine import finite, quantized
from trimtab.errors import ModelError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PROBE_TOKENS = 48  # enough to touch every layer, small beside loading
_VOCABULARY_MATRICES = ("embed_tokens", "embed_in", "embed_out", "lm_head", "wte")
# They rewrite the base by what cannot be had again: a randomised decomposition, quantisation errors, other data.
_UNREPEATABLE_STARTS = ("pissa_niter", "loftq", "corda", "lora_ga")
# Largest difference of a logit, as a share of the largest logit: what rounding explains. A wrong merge is off by 1e-2.
_MERGE_GAP = {torch.float32: 2e-5, torch.float64: 1e-10, torch.float16: 5e-3, torch.bfloat16: 4e-2}


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Within, PEFT is used without two kinds of warnings that the user can do nothing about: names that it takes from
    transformers and that will be renamed, and patterns of its own for experts that it then does not find."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", message=r"The following (rank|alpha)_pattern keys did not match")
        yield


@dataclass(frozen=True, slots=True)
class AdapterFolder:
    """A PEFT folder whose words have been read and found harmless. `base`: a folder or Hub name."""

    folder: Path
    base: str

    @classmethod
    def read(cls, folder: Path) -> AdapterFolder:
        """Raises ModelError for weights that are pickled or missing, a kind that is no LoRA, a module to import."""
        if not (folder / WEIGHTS).is_file():
            has_pickle = (folder / "adapter_model.bin").is_file()
            fault = "weights only as pickle (adapter_model.bin)" if has_pickle else f"no {WEIGHTS}"
            raise ModelError(f"{folder}: {fault}", remedy="Save the adapter again: model.save_pretrained(FOLDER).")
        tree = store.read_json(folder / CONFIG)
        if not isinstance(tree, dict):
            raise ModelError(f"{folder}: {CONFIG} is no object", remedy="Download or save the adapter again.")
        kind = tree.get("peft_type")
        if str(kind).upper() != "LORA":
            raise ModelError(
                f"{folder}: an adapter of kind {kind!r}, and only LORA ones (with DoRA) are read",
                remedy="Merge it into its base where you trust it, and name that folder.",
            )
        if tree.get("megatron_config") is not None:  # PEFT imports the module that `megatron_core` names
            raise ModelError(
                f"{folder}: its {CONFIG} names a module to import (megatron_core)",
                remedy="Remove megatron_config and megatron_core from it.",
            )
        start = tree.get("init_lora_weights")
        if isinstance(start, str) and start.startswith(_UNREPEATABLE_STARTS):
            raise ModelError(
                f"{folder}: an adapter that started as {start!r} stands on a base that was changed at that time",
                remedy="Convert it to plain LoRA where it was trained (path_initial_model_for_weight_conversion), "
                "or name the merged folder.",
            )
        base = tree.get("base_model_name_or_path")
        if not isinstance(base, str) or not base or Path(base).resolve() == folder.resolve():
            raise ModelError(f"{folder}: {CONFIG} does not name its base model", remedy="Merge it elsewhere.")
        return cls(folder, base)

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor of the adapter, by name; no weights are read."""
        from safetensors import safe_open

        with safe_open(self.folder / WEIGHTS, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  # no mapping


def merge(base: Any, adapter: AdapterFolder) -> Any:
    """`base`, a transformers model, with the adapter merged in: a plain model that says what the two say together.

    An adapter trained against 4-bit matrices is merged into matrices rounded likewise, which is what it was trained on.
    Raises ModelError where the merged model's logits are not those of the adapter on its base.
    """
    from peft import PeftModel

    shapes = adapter.weight_shapes()
    _resize_vocabulary(base, adapter, shapes)
    if quantized.is_quantized_adapter(adapter.folder):
        quantized.round_like(base)
    with quiet_peft():
        peft_model = PeftModel.from_pretrained(base, str(adapter.folder)).eval()
    finite.refuse_weights(peft_model, str(adapter.folder))  # by the adapter's own tensor, before it is folded in
    return fold(peft_model, shapes, subject=f"{adapter.folder}: merged into {adapter.base}, this adapter")


def fold(peft_model: Any, names: Iterable[str], *, subject: str) -> Any:
    """A PEFT model's base with its active adapters merged in, in place. `names`: of the adapters' tensors.

    Raises ModelError, about `subject`, as `merge` does.
    """
    expected = _probe_logits(peft_model)
    if any("embed" in name or "lm_head" in name for name in names):
        _untie(peft_model)
    model = peft_model.merge_and_unload().eval()
    _declare_tie(model)
    actual = _probe_logits(model)
    gap = float((actual - expected).abs().max() / expected.abs().max().clamp(min=1.0))
    if gap > _MERGE_GAP[next(model.parameters()).dtype]:
        raise ModelError(
            f"{subject} gives another model (logits off by {gap:.1g} of their size)",
            remedy="Merge it with the library that trained it, compare the answers, and name the merged folder.",
        )
    return model


def _resize_vocabulary(base: Any, adapter: AdapterFolder, shapes: dict[str, tuple[int, ...]]) -> None:
    """Rows for tokens that were added before the adapter was trained. Raises ModelError where its file lacks them."""
    n_rows = max((_vocabulary_rows(name, shape) for name, shape in shapes.items()), default=0)
    if not n_rows or n_rows == base.get_input_embeddings().weight.shape[0]:
        return
    whole = {name for name, shape in shapes.items() if shape[0] == n_rows and "lora_" not in name}
    n_matrices = 1 if base.get_output_embeddings().weight is base.get_input_embeddings().weight else 2
    if len(whole) < n_matrices:
        raise ModelError(
            f"{adapter.folder}: it was trained with a vocabulary of {n_rows:,} rows, and {WEIGHTS} does not hold those "
            "that its base lacks",
            remedy="Save it again with save_embedding_layers=True, where the model with these rows still is.",
        )
    base.resize_token_embeddings(n_rows, mean_resizing=False)


def _vocabulary_rows(name: str, shape: tuple[int, ...]) -> int:
    """Rows of the vocabulary that a tensor of the adapter speaks of; 0 where it is about something else."""
    if not any(matrix in name for matrix in _VOCABULARY_MATRICES) or "token_adapter" in name or len(shape) < 2:
        return 0
    if "lora_embedding_A" in name:
        return shape[1]
    return 0 if "lora_A" in name or "lora_embedding_B" in name else shape[0]


def _untie(model: nn.Module) -> None:
    """Give every second holder of a parameter a copy of its own, adapters and wrappers around it included."""
    holders: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                holders.setdefault(id(parameter), []).append((module, name))
    for places in holders.values():
        for module, name in places[1:]:
            parameter = module._parameters[name]
            assert parameter is not None
            module._parameters[name] = nn.Parameter(parameter.detach().clone(), parameter.requires_grad)


def _declare_tie(model: Any) -> None:
    """`tie_word_embeddings` as it is: what is declared tied is saved once and read back as one."""
    head = model.get_output_embeddings()
    if head is None or head.weight is model.get_input_embeddings().weight:
        return
    for config in (model.config, model.config.get_text_config(decoder=True)):
        config.tie_word_embeddings = False
    if hasattr(model, "all_tied_weights_keys"):  # transformers keeps a table of what it ties, made when it loads
        model.all_tied_weights_keys = {}


@torch.no_grad()
def _probe_logits(model: Any) -> Tensor:
    """fp32 logits [L, V] of a fixed row of token ids that covers the whole vocabulary evenly."""
    n_rows = model.get_input_embeddings().weight.shape[0]
    ids_L = torch.linspace(0, n_rows - 1, min(_PROBE_TOKENS, n_rows)).long()
    device = next(model.parameters()).device
    logits: Tensor = model(input_ids=ids_L[None].to(device), use_cache=False).logits[0].float()
    return logits
