"""Models in and out: a folder or Hub name becomes weights and tokenizer, a policy a plain transformers or PEFT folder.

Weights are read from safetensors only and code that comes with a model is not run unless that is asked for by name.
A PEFT folder is accepted too: its base is loaded and the adapter merged into it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from trimtab import store
from trimtab.engine import adapters, finite, identity, mixed, model_config, quantized
from trimtab.engine.adapters import AdapterFolder
from trimtab.engine.trainable import causal_lm_of, has_adapter
from trimtab.errors import ModelError
from trimtab.records import digest
from trimtab.tokenizer_files import load_tokenizer, save_tokenizer

Precision = Literal["float32", "mixed", "bfloat16", "float16"]
"""Of weights and products; mixed: fp32 weights, products of bfloat16 numbers (`engine.mixed`); float16: fp32 weights,
products of float16 numbers (`engine.half`)."""
DtypeName = Literal["auto"] | Precision
DeviceName = Literal["auto", "cuda", "mps", "cpu"]
LEAST_PARAMETERS = 10_000_000  # below, products are too small for the units to show
MERGES = 1  # raise when merged folders come out otherwise, so that older ones are not taken for them
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A causal LM in eval mode on its device, with its tokenizer. `digest` names the weights (64 hex digits)."""

    model: Any
    tokenizer: Any
    name: str
    digest: str


def pick_device(device: DeviceName = "auto") -> torch.device:
    """`auto` is cuda, else mps, else cpu. Raises ModelError for a device that is not there."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return torch.device(next(name for name, present in available.items() if present))
    if not available[device]:
        present = ", ".join(name for name, is_there in available.items() if is_there)
        raise ModelError(
            f"device {device!r} is not available here", remedy=f"Use auto, or one that is there: {present}."
        )
    return torch.device(device)


def pick_dtype(dtype: DtypeName, device: torch.device) -> torch.dtype:
    """Of the weights. `auto`, where nobody measures (a run does, `runtime.precision`), is bfloat16 on CUDA hardware
    with bfloat16 units, float32 on CPU and MPS; `mixed` and `float16` are ways to multiply fp32 weights."""
    match dtype:
        case "float32" | "mixed" | "float16":
            return torch.float32
        case "bfloat16":
            return torch.bfloat16
        case "auto":
            return torch.bfloat16 if device.type == "cuda" and mixed.has_units("cuda") else torch.float32


def candidates(device: torch.device, *, parameters: int) -> tuple[Precision, ...]:
    """What this processor computes faster than float32, the fastest first, for a model of so many parameters."""
    if not mixed.has_units(device.type) or parameters < LEAST_PARAMETERS:
        return ()
    return ("bfloat16", "mixed") if device.type == "cuda" else ("mixed",)


def load(
    name: str,
    *,
    revision: str | None = None,
    dtype: DtypeName = "auto",
    device: DeviceName = "auto",
    trust_remote_code: bool = False,
    offline: bool = False,
) -> Loaded:
    """A causal LM and its tokenizer from a folder or the Hub; ModelError, with the remedy, for what is missing, and
    NumericsError for weights that are not finite."""
    place = pick_device(device)
    folder = Path(name) if Path(name).is_dir() else None
    if folder is not None:
        inspect_folder(folder)
        if identity.is_adapter(folder):
            return _load_adapter(
                folder, dtype=dtype, device=device, trust_remote_code=trust_remote_code, offline=offline
            )
    elif name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(f"{name}: there is no such folder", remedy="Name a model folder or a Hub model (owner/name).")
    from transformers import AutoModelForCausalLM

    local = offline or folder is not None
    with quiet(), _one_message(name, offline=offline):
        tokenizer = load_tokenizer(name, revision=revision, offline=local, trust_remote_code=trust_remote_code)
        model = AutoModelForCausalLM.from_pretrained(
            name,
            use_safetensors=True,
            dtype=pick_dtype(dtype, place),
            revision=revision,
            trust_remote_code=trust_remote_code,
            local_files_only=local,
        )
    if not len(tokenizer):
        raise ModelError(f"{name}: the tokenizer has no vocabulary", remedy=_NO_TOKENIZER)
    finite.refuse_weights(model, name)
    weights = weights_digest(folder or _snapshot(name, revision) or model)
    return Loaded(model.to(place).eval(), tokenizer, name, weights)


_NO_TOKENIZER = "Put tokenizer.json and tokenizer_config.json beside the weights (tokenizer.save_pretrained(FOLDER))."


def inspect_folder(folder: Path, *, classifier: bool = False) -> None:
    """The mistakes that can be seen before anything is loaded."""
    adapter = identity.is_adapter(folder)
    if not adapter and not (folder / "config.json").is_file():
        raise ModelError(
            f"{folder}: no model here (config.json is missing)",
            remedy="Name a folder written by save_pretrained, or a Hub model (owner/name).",
        )
    if not any(folder.glob("*.safetensors")):
        pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
        if pickles:
            raise ModelError(
                f"{folder}: weights only as pickle ({pickles[0]}), which can run code when it is opened",
                remedy="Convert them where you trust their source: model.save_pretrained(FOLDER) writes safetensors.",
            )
        raise ModelError(f"{folder}: no weights here (*.safetensors)", remedy="Download or save the model again.")
    if adapter:
        AdapterFolder.read(folder)
        return
    if not classifier and identity.is_classifier(folder):
        raise ModelError(
            f"{folder}: a reward model, which scores answers and writes none",
            remedy="use it as a judge (--judge reward:FOLDER), or name a causal language model here",
        )
    if not any((folder / file).is_file() for file in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")):
        raise ModelError(f"{folder}: no tokenizer beside the weights", remedy=_NO_TOKENIZER)


def _load_adapter(folder: Path, **options: Any) -> Loaded:
    """The base that an adapter names, with the adapter merged in: from here on a plain model."""
    from transformers import GenerationConfig

    adapter = AdapterFolder.read(folder)
    try:
        base = load(adapter.base, **options)
    except ModelError as error:
        raise identity.base_error(folder, error) from error
    with quiet(), _one_message(str(folder), offline=True):
        model = adapters.merge(base.model, adapter)
        if (folder / "generation_config.json").is_file():
            model.generation_config = GenerationConfig.from_pretrained(str(folder), local_files_only=True)
        own = (folder / "tokenizer_config.json").is_file()
        tokenizer = load_tokenizer(str(folder), offline=True) if own else base.tokenizer
    weights = hashlib.sha256(f"{base.digest}+{weights_digest(folder)}".encode()).hexdigest()
    return Loaded(model, tokenizer, str(folder), weights)


def plain_folder(folder: Path, *, trust_remote_code: bool = False, offline: bool = False) -> Path:
    """`folder` itself; for an adapter, a plain model folder in the global cache with the adapter merged into its base.

    So whatever stands on that model (a reference, another adapter, full fine-tuning) stands on what the two say
    together, in name and numbers. Merged once, in fp32: bfloat16 would round small updates away.
    """
    if not identity.is_adapter(folder):
        return folder
    digests = identity.identify(str(folder), offline=offline)
    target = store.home() / "merged" / digest([digests.weights, digests.adapter, digests.tokenizer, MERGES])[:32]
    if not target.is_dir():
        merged = load(str(folder), dtype="float32", device="cpu", trust_remote_code=trust_remote_code, offline=offline)
        store.commit_folder(target, lambda into: save(merged.model, merged.tokenizer, into))
    return target


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Around loading a classifier from a local folder: mistakes that can be seen come first, transformers is quiet, and
    what it raises is one ModelError with a remedy."""
    inspect_folder(folder, classifier=True)
    with quiet(), _one_message(str(folder), offline=True):
        yield


@contextmanager
def _one_message(name: str, *, offline: bool) -> Iterator[None]:
    """What transformers raises while it loads, as one ModelError with a remedy."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    load_errors = (
        OSError, ValueError, KeyError, ImportError, AttributeError, TypeError, RuntimeError,
        SafetensorError, StrictDataclassError,
    )  # fmt: skip
    try:
        yield
    except load_errors as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{name}: cannot be loaded ({first})", remedy=_remedy(str(error), offline=offline)) from error


# words in what transformers says -> what to do about it; the first line that fits
_REMEDIES = (
    (
        ("trust_remote_code", "custom code"),
        "This model brings its own code. Read it, then say model.trust_remote_code = true if you trust it.",
    ),
    (("deserializing", "header"), "The weights file is damaged or cut short: download or save the model again."),
    (("safetensors",), "trimtab reads safetensors only. Convert: model.save_pretrained(FOLDER) writes them."),
    (("gated", "401", "403"), "Accept the model's terms on its Hub page and set HF_TOKEN."),
    (("tokenizer",), _NO_TOKENIZER),
)


def _remedy(text: str, *, offline: bool) -> str:
    for words, remedy in _REMEDIES:
        if any(word in text.lower() for word in words):
            return remedy
    if offline:
        return "Offline, only what is already in the Hub cache or in a local folder can be used."
    return "Check the name (owner/name or a folder), the connection, and that it is a causal language model."


def _snapshot(name: str, revision: str | None) -> Path | None:
    """The Hub cache folder that the weights were just read from."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(config).parent if isinstance(config, str) else None


# --- out ---------------------------------------------------------------------------------------------------------


def end_generation_at(model: Any, stop_ids: Sequence[int]) -> None:
    """Let the generation config name every id at which an answer ends: base models name the end of a text only, and
    plain `generate` would run past the end of turn that was trained. Left as it is where it names them already."""
    ends = model.generation_config.eos_token_id
    if set(stop_ids) != set([ends] if isinstance(ends, int) else ends or ()):
        model.generation_config.eos_token_id = list(stop_ids)


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Writes a folder that plain transformers loads (with an adapter: a PEFT folder) into the existing `folder`.

    Raises NumericsError where a weight is not finite.
    """
    finite.refuse(
        model.named_parameters(),
        subject="the model to be saved",
        remedy="The checkpoints from before are whole. Lower train.learning_rate or lengthen train.warmup.",
    )
    adapter = {"save_embedding_layers": False} if has_adapter(model) else {}  # "auto" asks the Hub
    with quiet():
        model.save_pretrained(str(folder), **adapter)
        if adapter:  # PEFT saves no generation config, and the base's does not know where answers end now
            causal_lm_of(model).generation_config.save_pretrained(str(folder))
        save_tokenizer(tokenizer, folder)
    if not has_adapter(model):
        model_config.keep_source_config(model, folder)
    if quantized.is_quantized(model):
        store.write_json(folder / quantized.MARK, {"quantize": quantized.KIND})


def weights_digest(weights: Path | nn.Module) -> str:
    """sha256 that names weights: of a folder, over its (file name, sha256) of safetensors files in order; of a model in
    memory, over its tensors' names, dtypes, shapes and bytes in order. The two forms differ from each other."""
    if isinstance(weights, Path):
        rows = [(path.name, _file_digest(path)) for path in sorted(weights.glob("*.safetensors"))]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    total = hashlib.sha256()
    for name, tensor in sorted(weights.state_dict().items()):
        total.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no advice from transformers while we load or save; its settings come back after."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
