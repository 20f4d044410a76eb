"""What names a model before it is loaded: digests of the files in its folder, without a tensor in memory.

A digest is kept by path, size, times and inode, so that gigabytes of weights are hashed once and not on every run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab import store
from trimtab.errors import ModelError, StoreError
from trimtab.records import digest
from trimtab.tokenizer_files import TOKENIZER_FILES

# all that changes a forward pass; the model card, the generation settings and other formats do not
_COMPUTES = ("*.safetensors", "config.json", "adapter_config.json", "quantization.json", "*.py")


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """sha256 (64 hex digits) of what computes and of what tokenizes; `adapter` where the folder is a PEFT one."""

    weights: str
    adapter: str | None
    tokenizer: str


def identify(name: str, *, revision: str | None = None, offline: bool = False) -> ModelIdentity:
    """The identity of a folder or Hub model. A PEFT folder is its base's weights and its own adapter.

    Raises ModelError when there is no such folder or Hub model.
    """
    folder = folder_of(name, revision=revision, offline=offline)
    tokenizer = _digest_of(folder, TOKENIZER_FILES)
    own = _digest_of(folder, _COMPUTES)
    if not is_adapter(folder):
        return ModelIdentity(own, None, tokenizer)
    try:
        below = identify(base_of(folder), offline=offline)
    except ModelError as error:
        raise base_error(folder, error) from error
    return ModelIdentity(below.weights, own if below.adapter is None else digest([below.adapter, own]), tokenizer)


def base_of(folder: Path) -> str:
    """The base that a PEFT folder names: a folder or a Hub model. Raises ModelError where it names none."""
    adapter_config = store.read_json(folder / "adapter_config.json")
    base = adapter_config.get("base_model_name_or_path") if isinstance(adapter_config, dict) else None
    if not isinstance(base, str) or not base or Path(base).resolve() == folder.resolve():
        raise ModelError(f"{folder}: adapter_config.json does not name its base model", remedy="merge it elsewhere")
    return base


def base_error(folder: Path, error: ModelError) -> ModelError:
    """What to say of a PEFT folder whose base cannot be had: `error`, or what became of the base."""
    base, run = Path(base_of(folder)), folder.parent
    if base.is_dir():
        return error
    if not base.is_absolute():
        advice = f"where {base} is a folder, go to the one from which that path was given"
        return ModelError(f"{folder} stands on {error.message}", remedy=f"{advice}; else {error.remedy}")
    if _is_cached(base):
        is_run = (run / "plan.json").is_file()
        command = f"`trimtab plan {run}`" if is_run else "a plan of the run that it comes from"
        return ModelError(
            f"{folder}: its base was unpacked or merged in the cache, and pruned ({base})",
            remedy=f"{command} makes it again",
        )
    return ModelError(f"{folder}: its base is gone ({base})", remedy="put that folder back where it was")


def _is_cached(path: Path) -> bool:
    """Whether a folder is one of those that are unpacked, merged or linked in the global cache."""
    home = store.home().resolve()
    return any(path.resolve().is_relative_to(home / kind) for kind in ("gguf", "merged", "templates"))


def is_adapter(folder: Path) -> bool:
    """Whether a model folder is a PEFT one, which stands on a base of its own."""
    return (folder / "adapter_config.json").is_file()


def is_classifier(folder: Path) -> bool:
    """Whether a model folder holds a sequence classifier, as a reward model is one."""
    try:
        tree = store.read_json(folder / "config.json")
    except StoreError:  # whoever loads it says what is wrong
        return False
    architectures = tree.get("architectures") if isinstance(tree, dict) else None
    return isinstance(architectures, list) and any(str(n).endswith("ForSequenceClassification") for n in architectures)


def require_reward(folder: Path) -> None:
    """Raises ModelError, from config.json alone, for a folder that is no sequence classifier with one output."""
    remedy = "name a reward model (a sequence classifier with num_labels = 1), or a finished run of `trimtab reward`"
    if not is_classifier(folder):
        raise ModelError(
            f"{folder} is no reward model: there is no …ForSequenceClassification in its config.json", remedy=remedy
        )
    tree = store.read_json(folder / "config.json")
    labels = tree.get("id2label")  # transformers counts these first, and saves none where there are two
    n_labels = len(labels) if isinstance(labels, dict) else tree.get("num_labels", 2)
    if n_labels != 1:
        raise ModelError(f"{folder} gives {n_labels} scores, where a reward model gives one", remedy=remedy)


def reward_folder_of(name: str, *, offline: bool = False) -> Path:
    """`folder_of` a reward model, which may be named by the folder of the run that trained it.

    Raises ModelError for a run that has none.
    """
    folder = folder_of(name, offline=offline)
    if is_classifier(folder / "model"):
        return folder / "model"
    if (folder / "plan.json").is_file():
        raise ModelError(
            f"{folder} is a run that has no reward model",
            remedy="name a finished run of `trimtab reward`, or one of its seeds",
        )
    return folder


def folder_of(name: str, *, revision: str | None = None, offline: bool = False) -> Path:
    """The folder with the model's files; those of a Hub model are fetched into the Hub's own cache first."""
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                local_files_only=offline,
                allow_patterns=[*_COMPUTES, *TOKENIZER_FILES, "*.index.json", "generation_config.json"],
                ignore_patterns=["*/*", "consolidated*"],  # other formats of the same weights
            )
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"{name}: no folder here, and no model that could be fetched from the Hub ({first})",
            remedy="check the name (owner/name or a folder) and the connection; private models need HF_TOKEN",
        ) from error


def _digest_of(folder: Path, patterns: Iterable[str]) -> str:
    files = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    return digest([[path.name, file_digest(path)] for path in files])


def file_digest(path: Path) -> str:
    """sha256 of a file, from memory where nothing has touched it since the last time.

    Size and modification time alone would not do: both can be carried over to other weights (`cp -p`, `rsync -t`). The
    time of the last change of the file's entry cannot be set, and another file in its place has another inode.
    """
    real, ledger = path.resolve(), store.home() / "digests.json"
    status = real.stat()
    stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
    digests = _read_digests(ledger)
    entry = digests.get(str(real))
    if entry and entry[:-1] == stamp:
        return str(entry[-1])
    weights_digest = store.file_digest(real)
    if status.st_size > 1_000_000:  # smaller ones cost less to hash than to remember
        store.write_text(ledger, json.dumps({**digests, str(real): [*stamp, weights_digest]}, indent=1))
    return weights_digest


def _read_digests(ledger: Path) -> dict[str, Any]:
    try:
        digests = store.read_json(ledger)
    except StoreError:
        return {}
    return digests if isinstance(digests, dict) else {}
