"""A GGUF file: what it says of itself, read and checked before any weight is unpacked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from trimtab import store
from trimtab.errors import ModelError

SUFFIX = ".gguf"
SOURCE = "gguf.json"  # beside the weights that were unpacked
_AGAIN = "The file is damaged or cut short: download or convert it again."
_PARSE_ERRORS = (ValueError, IndexError, KeyError, OverflowError, MemoryError, AttributeError, TypeError, OSError)


def library() -> ModuleType:
    """The package gguf. Raises ModelError where it is not installed."""
    if find_spec("gguf") is None:
        raise ModelError("GGUF files need a package that is not installed", remedy="pip install 'trimtab[gguf]'")
    return import_module("gguf")


@dataclass(frozen=True, slots=True)
class GgufSource:
    """Where a plain model folder came from. `tensors`: how many there are of each format; sha256 of the file."""

    file: str
    sha256: str
    architecture: str
    quantization: str
    tensors: Mapping[str, int]

    @property
    def sentence(self) -> str:
        tensors = ", ".join(f"{n} {name}" for name, n in self.tensors.items())
        return f"dequantised from {self.file} ({self.quantization}; tensors: {tensors})"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def source_of(folder: Path) -> GgufSource | None:
    """The file that a model folder was made of; None where it was no GGUF file."""
    path = folder / SOURCE
    return GgufSource(**store.read_json(path)) if path.is_file() else None


@dataclass(frozen=True)
class GgufFile:
    """`fields`: the file's metadata by key. `tensors`: gguf's own, mapped and not read."""

    path: Path
    fields: Mapping[str, Any]
    tensors: Sequence[Any]

    @classmethod
    def read(cls, path: Path) -> GgufFile:
        """Raises ModelError for what is no GGUF file, is cut, or holds tensors of a format that cannot be unpacked."""
        require(path)
        try:
            reader = library().GGUFReader(path)
            fields = {key: field.contents() for key, field in reader.fields.items()}
            file = cls(path, fields, reader.tensors)
        except _PARSE_ERRORS as error:
            if "GGMLQuantizationType" in str(error):
                raise file_error(path, f"holds tensors in a format that is not known here ({error})") from error
            raise ModelError(f"{path}: cannot be read as GGUF ({_first_line(error)})", remedy=_AGAIN) from error
        file._refuse_unreadable()
        return file

    def _refuse_unreadable(self) -> None:
        if not isinstance(self.fields.get("general.architecture"), str) or not self.tensors:
            raise file_error(self.path, "holds no model (architecture or tensors are missing)")
        if self.fields.get("split.count", 0) > 1:
            raise file_error(self.path, "is one part of several", remedy="Join them first: llama-gguf-split --merge.")
        firsts = {tensor.tensor_type: tensor for tensor in reversed(self.tensors)}
        for kind, tensor in firsts.items():
            try:
                library().dequantize(tensor.data[:1], kind)
            except (NotImplementedError, ValueError) as error:
                raise file_error(
                    self.path, f"{tensor.name} is in a format that cannot be unpacked ({kind.name})"
                ) from error

    @property
    def architecture(self) -> str:
        return str(self.fields["general.architecture"])

    def of_model(self, key: str, default: Any = None) -> Any:
        """A field that stands under the architecture's name, such as `rope.freq_base`."""
        return self.fields.get(f"{self.architecture}.{key}", default)

    @property
    def quantization(self) -> str:
        """The kind of file as people call it (`Q4_K_M`), else the format of most of the weights."""
        kinds = {kind.value: kind.name for kind in library().LlamaFileType}
        if (name := kinds.get(self.fields.get("general.file_type"))) is not None:
            return str(name).removeprefix("MOSTLY_").removeprefix("ALL_")
        weights: Counter[str] = Counter()
        for tensor in self.tensors:
            weights[tensor.tensor_type.name] += int(tensor.n_elements)
        return max(weights, key=weights.__getitem__)

    def source(self, sha256: str) -> GgufSource:
        tensors = Counter(tensor.tensor_type.name for tensor in self.tensors)
        return GgufSource(self.path.name, sha256, self.architecture, self.quantization, dict(tensors.most_common()))


def require(path: Path) -> None:
    """Raises ModelError where the package gguf, or a GGUF file at `path`, is not there."""
    library()
    remedy = "Name a GGUF file, a model folder or a Hub model."
    if not path.is_file():
        raise ModelError(f"{path}: there is no such file", remedy=remedy)
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ModelError(f"{path}: this is no GGUF file", remedy=remedy)


def file_error(path: Path, fault: str, *, remedy: str = "") -> ModelError:
    return ModelError(f"{path}: {fault}", remedy=remedy or "Name the model's own folder or its Hub id instead.")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
