"""A GGUF file as a plain transformers folder in the global cache: dequantised once, named by the file's sha256."""

from __future__ import annotations

from pathlib import Path

from trimtab import store
from trimtab.disk import require_space
from trimtab.engine import gguf_tokenizer, gguf_weights, identity
from trimtab.engine.gguf_file import SOURCE, GgufFile, require
from trimtab.errors import ModelError
from trimtab.records import digest

FORMAT = 1  # raise when folders come out otherwise, so that older ones are not taken for them


def plain_folder(path: Path) -> Path:
    """The folder in the cache that has the file's weights in fp32, its tokenizer and its chat template.

    Raises ModelError where the file cannot be read in full, StoreError where the disk has no room;
    nothing is left then.
    """
    require(path)
    sha256 = identity.file_digest(path)
    target = store.home() / "gguf" / digest([sha256, FORMAT])[:32]
    if not target.is_dir():
        file = GgufFile.read(path)
        n_bytes = 4 * sum(int(tensor.n_elements) for tensor in file.tensors)
        require_space(target, n_bytes)
        store.commit_folder(target, lambda folder: _write(file, sha256, folder), needs=n_bytes)
    return target


def fetch(name: str, file: str, *, revision: str | None, offline: bool) -> Path:
    """A GGUF file of a folder or of a Hub model. Raises ModelError where it is not there."""
    if Path(name).is_dir():
        if (Path(name) / file).is_file():
            return Path(name) / file
        there = ", ".join(sorted(path.name for path in Path(name).glob("*.gguf"))) or "none"
        raise ModelError(f"{name}: no file {file} here", remedy=f"GGUF files there: {there}.")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(name, file, revision=revision, local_files_only=offline))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"{name}: {file} could not be fetched from the Hub ({first})",
            remedy="check both names and the connection; private models need HF_TOKEN",
        ) from error


def _write(file: GgufFile, sha256: str, folder: Path) -> None:
    gguf_tokenizer.write(file, folder)
    gguf_weights.write(file, folder)
    store.write_json(folder / SOURCE, file.source(sha256).to_json())
