"""Rows of a data set on the Hugging Face Hub, or of a folder that `datasets` saved. `datasets` is imported on use."""

from __future__ import annotations

import re
import socket
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from trimtab.data import json_columns
from trimtab.errors import DataError, require_package

if TYPE_CHECKING:
    from datasets import Dataset

_NETWORK_ERRORS = ("ConnectError", "ConnectTimeout", "ReadTimeout", "LocalEntryNotFoundError")
_SAVED_MARKS = ("dataset_dict.json", "dataset_info.json", "state.json")
_HUB_NAME = re.compile(
    r"(?P<id>[\w][\w.\-]*(?:/[\w][\w.\-]*)?)(?::(?P<subset>[\w.\-]+))?(?:@(?P<revision>[\w.\-/]+))?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class HubName:
    """`owner/name`, with an optional subset and revision: `owner/name:subset@revision`."""

    id: str
    subset: str | None = None
    revision: str | None = None


def parse_hub_name(source: str) -> HubName | None:
    """The parts of a Hub data set's name, or None when the text cannot be one."""
    match = _HUB_NAME.fullmatch(source)
    return HubName(match["id"], match["subset"], match["revision"]) if match else None


@dataclass(frozen=True, slots=True)
class LoadedSplit:
    """One split of a data set in memory-mapped Arrow form."""

    dataset: Dataset
    name: str
    identity: str

    def size(self) -> int:
        return len(self.dataset)

    def rows(self, places: Sequence[int] | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
        """Rows numbered from 1; only those at `places`, ascending and from 0, where they are given."""
        parse = json_columns.parser(self.dataset.data.schema, self.dataset.features.to_dict())
        dataset = self.dataset if places is None else self.dataset.select(places)
        numbers = range(1, len(dataset) + 1) if places is None else [place + 1 for place in places]
        if parse is None:
            yield from zip(numbers, dataset, strict=True)
            return
        tables = dataset.with_format("arrow").iter(batch_size=1000)  # as stored: the library retypes such texts
        yield from zip(numbers, (parse(row) for table in tables for row in table.to_pylist()), strict=True)

    def digest(self) -> str:
        """sha256 of what identifies the rows: the source's name and revision, the split, its fingerprint."""
        return sha256(self.identity.encode()).hexdigest()


def is_saved_dataset(folder: Path) -> bool:
    return any((folder / mark).is_file() for mark in _SAVED_MARKS)


def load_saved(folder: Path, *, split: str | None, split_key: str = "data.split") -> LoadedSplit:
    """A folder made by `Dataset.save_to_disk` or `DatasetDict.save_to_disk`. Raises `DataError` when it is damaged."""
    require_package("datasets", extra="hub", reason="a data set that `datasets` saved")
    from datasets import load_from_disk

    try:
        dataset_or_splits = load_from_disk(str(folder))
    except Exception as error:
        raise DataError(
            f"{folder}: the saved data set cannot be loaded: {_first_line(error)}",
            remedy="save it again with save_to_disk, or export it with to_json and name that file",
        ) from None
    dataset, name = _choose_split(dataset_or_splits, split=split, split_key=split_key, source=str(folder))
    return LoadedSplit(dataset, name, f"saved {name} {_contents_digest(dataset)}")


def load_hub(name: HubName, *, split: str | None, split_key: str = "data.split", offline: bool) -> LoadedSplit:
    """A data set from the Hub, or from the local cache alone when `offline`. Never runs code from the data set.

    Raises `DataError` with a remedy when it cannot be reached, does not exist, is gated, or needs a subset named.
    """
    require_package("datasets", extra="hub", reason=f"{name.id} from the Hub")
    import datasets

    offline = offline or bool(datasets.config.HF_HUB_OFFLINE)
    unknown_host = None if offline else _unknown_host()
    try:
        with _hub_offline() if offline or unknown_host else nullcontext():
            dataset_or_splits = datasets.load_dataset(name.id, name.subset, revision=name.revision)
    except Exception as error:
        if unknown_host:
            raise _unreachable(name, f"{unknown_host} has no address here") from error
        raise _hub_error(name, error, offline=offline) from error
    source = name.id if name.subset is None else f"{name.id}:{name.subset}"
    dataset, split_name = _choose_split(dataset_or_splits, split=split, split_key=split_key, source=source)
    return LoadedSplit(dataset, split_name, f"hub {source} {name.revision} {split_name} {dataset._fingerprint}")


def _choose_split(dataset_or_splits: Any, *, split: str | None, split_key: str, source: str) -> tuple[Dataset, str]:
    """The split that was named, else the only one. Which of several is for the user to say, by `split_key`."""
    if not isinstance(dataset_or_splits, dict):
        own = dataset_or_splits.split
        if split in (None, "train" if own is None else str(own)):  # `train` is what data.split says by default
            return dataset_or_splits, str(own or "all")
        if own is None:
            raise DataError(
                f"{source}: there are no splits in it, so none is called '{split}'", remedy=f"leave {split_key} out"
            )
        raise DataError(f"{source}: this is the split '{own}', not '{split}'", remedy=f"write --{split_key} {own}")
    names = list(dataset_or_splits)
    if split is None and len(names) > 1:
        raise DataError(
            f"{source}: there are several splits in it: {', '.join(names)}",
            remedy=f"name one of them: --{split_key} NAME",
        )
    name = split or names[0]
    if name not in dataset_or_splits:
        raise DataError(
            f"{source}: no split is called '{name}'; splits found: {', '.join(names)}",
            remedy=f"name one of them, for instance: --{split_key} {names[0]}",
        )
    return dataset_or_splits[name], name


def _contents_digest(dataset: Dataset) -> str:
    """sha256 over the Arrow files of a saved split and, when rows were selected, its fingerprint."""
    digest = sha256(str(dataset._fingerprint).encode())
    for entry in dataset.cache_files:
        with Path(entry["filename"]).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _hub_error(name: HubName, error: Exception, *, offline: bool) -> DataError:
    kind, text = type(error).__name__, _first_line(error)
    if kind == "ValueError" and ("onfig name is missing" in text or "BuilderConfig" in text):
        return DataError(f"{name.id}: {text}", remedy=f"name one subset: {name.id}:SUBSET")
    if "gated" in text.lower():
        return DataError(f"{name.id}: {text}", remedy="accept its terms on the Hub, then log in with: hf auth login")
    if offline:
        return DataError(
            f"{name.id}: there is no such file or folder here, and the Hub's local cache does not have it (offline)",
            remedy="check the path; or run once without --offline and HF_HUB_OFFLINE so that it can be downloaded",
        )
    if kind == "DatasetNotFoundError":
        return DataError(
            f"{name.id}: there is no such file or folder here, and no such data set on the Hub",
            remedy="check the spelling; a private data set needs: hf auth login",
        )
    if isinstance(error, ConnectionError | TimeoutError) or kind in _NETWORK_ERRORS:
        return _unreachable(name, text)
    return DataError(
        f"{name.id}: the Hub's data set cannot be loaded: {kind}: {text}",
        remedy="see --debug for the trace, or export the data set to JSON lines and name that file",
    )


def _unreachable(name: HubName, cause: str) -> DataError:
    return DataError(
        f"{name.id}: there is no such file or folder here, and the Hub cannot be reached: {cause}",
        remedy="check the path or the network; or download the data set elsewhere and name its files",
    )


def _unknown_host() -> str | None:
    """The Hub's host, where its name has no address and no proxy looks it up: the library would try for a minute, five
    times for each of its requests, and warn of each."""
    import huggingface_hub

    host = urlsplit(huggingface_hub.constants.ENDPOINT).hostname or ""
    if urllib.request.getproxies():
        return None
    try:
        socket.getaddrinfo(host, None)
    except socket.gaierror:
        return host
    return None


@contextmanager
def _hub_offline() -> Iterator[None]:
    """Answer from the local cache alone. The libraries read these settings at every call, not only at import."""
    import datasets
    import huggingface_hub

    before = (datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE)
    datasets.config.HF_HUB_OFFLINE = huggingface_hub.constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE = before


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
