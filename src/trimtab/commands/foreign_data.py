"""Data sets of other trainers' configurations as `data.source`, with what of them cannot be carried over.

TRL: `dataset_name`, or `datasets` with a share of the mixture each. The alignment-handbook: `dataset_mixer` (older) and
`dataset_mixture`, with a share of each set's rows. LLaMA-Factory: names of its register, dataset_info.json. Axolotl: a
list of paths or files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab import store
from trimtab.commands.foreign_recipes import Conversion
from trimtab.commands.foreign_values import as_list, as_mapping, as_number, as_word
from trimtab.errors import ConfigError

LOADERS = ("json", "csv", "parquet", "text")  # of the datasets library: a path that only says how files are read
ALPACA = {"prompt": "instruction", "query": "input", "chosen": "chosen", "rejected": "rejected"}


@dataclass(frozen=True, slots=True)
class Part:
    """One data set. `share`: of its own rows, or of the mixture (`is_of_mixture`)."""

    name: str
    split: str | None = None
    share: float = 1.0
    is_of_mixture: bool = False


def carry(conversion: Conversion, folder: Path) -> None:
    """Put `data.source` and `data.split`. `folder`: where the configuration lies. Raises ConfigError without data."""
    match conversion.tool:
        case "trl":
            key, parts = _trl(conversion)
        case "llama-factory":
            key, parts = "dataset", _llama_factory(conversion, folder)
        case "axolotl":
            key, parts = "datasets", _axolotl(conversion)
    if not parts:
        raise ConfigError("it names no data set", remedy="add dataset_name (TRL), dataset, or datasets with a path")
    conversion.put(key, "data.source", _source(parts, conversion))
    splits = list(dict.fromkeys(part.split for part in parts if part.split))
    if splits:
        conversion.tree["data.split"] = splits[0]
    if splits[1:]:
        conversion.notes.append(f"its data sets name several splits; data.split is the first, not {splits[1:]}")


def _source(parts: Sequence[Part], conversion: Conversion) -> str | list[str] | dict[str, float]:
    names = list(dict.fromkeys(part.name for part in parts))
    if len(names) < len(parts):
        conversion.notes.append("a data set that stands there more than once is read once")
    if all(part.share == 1 for part in parts):
        return names[0] if len(names) == 1 else names
    if len(names) == 1:
        if not parts[0].is_of_mixture:
            conversion.notes.append(f"it takes {parts[0].share:g} of the rows of {names[0]}; here data.limit does")
        return names[0]
    if not parts[0].is_of_mixture:
        conversion.notes.append("shares of a mixture are of each data set's rows there, and of the drawn pairs here")
    return {name: sum(part.share for part in parts if part.name == name) for name in names}


def _name(part: Mapping[str, Any], *, name: str, subset: Any, conversion: Conversion) -> list[str]:
    """The files that a part names, else its Hub name as `owner/name:subset@revision`."""
    files = part.get("data_files")
    if files and (not name or name in LOADERS):
        values = list(files.values()) if isinstance(files, Mapping) else files
        return [str(file) for file in (values if isinstance(values, list) else [values])]
    if lost := [key for key in ("data_files", "data_dir", "folder", "num_samples") if part.get(key)]:
        conversion.notes.append(f"{', '.join(lost)} of {name} is not carried over: the whole set is read")
    if not name:
        return []
    return [name + (f":{subset}" if subset else "") + (f"@{part['revision']}" if part.get("revision") else "")]


def _trl(conversion: Conversion) -> tuple[str, list[Part]]:
    """TRL's one data set or mixture; the alignment-handbook's `dataset_mixer` (older) and `dataset_mixture`."""
    mixer, mixture = conversion.mapping("dataset_mixer"), conversion.get("dataset_mixture", "datasets")
    splits, subsets = conversion.words("dataset_splits"), as_list("dataset_configs", conversion.get("dataset_configs"))
    if splits:
        conversion.put("dataset_splits", "data.split", splits[0])
    if splits[1:]:
        conversion.notes.append(
            f"of dataset_splits the first is trained on; to hold {', '.join(splits[1:])} out, data.eval names the set "
            "and data.eval_split the split"
        )
    if mixer:
        subsets = subsets or [None] * len(mixer)
        if len(subsets) != len(mixer):
            raise ConfigError("dataset_configs and dataset_mixer differ in length", remedy="name a subset for each")
        names = [f"{name}:{subset}" if subset else name for name, subset in zip(mixer, subsets, strict=True)]
        shares = [as_number("dataset_mixer", share) for share in mixer.values()]
        return "dataset_mixer", [Part(name, share=share) for name, share in zip(names, shares, strict=True)]
    if mixture:
        key = "dataset_mixture" if "dataset_mixture" in conversion.theirs else "datasets"
        rows = mixture.get("datasets") if isinstance(mixture, Mapping) else mixture
        if isinstance(mixture, Mapping) and mixture.get("test_split_size"):
            size = as_number("test_split_size", mixture["test_split_size"])
            conversion.put("test_split_size", "data.holdout", size)
        return key, [part for row in as_list(key, rows) for part in _of_mixture(as_mapping(key, row), conversion)]
    name, subset = conversion.get("dataset_name"), conversion.get("dataset_config")
    if not name:
        return "dataset_name", []
    word = as_word("dataset_name", name)
    return "dataset_name", [Part(f"{word}:{subset}" if subset else word)]


def _of_mixture(row: Mapping[str, Any], conversion: Conversion) -> list[Part]:
    name, subset = row.get("id") or row.get("path"), row.get("config") or row.get("name")
    names = _name(row, name=str(name or ""), subset=subset, conversion=conversion)
    fraction, weight = row.get("fraction"), row.get("weight")
    share = as_number("weight", weight or 1.0) if fraction is None else as_number("fraction", fraction)
    return [Part(name, _split(row), share, is_of_mixture=fraction is not None) for name in names]


def _split(row: Mapping[str, Any]) -> str | None:
    return None if row.get("split") is None else as_word("split", row["split"])


def _llama_factory(conversion: Conversion, folder: Path) -> list[Part]:
    names = [name.strip() for word in conversion.words("dataset") for name in word.split(",") if name.strip()]
    place = Path(str(conversion.get("dataset_dir") or "data"))  # of where it was started, or beside the file
    register = next((path for path in (place / "dataset_info.json", folder / place / "dataset_info.json")
                     if path.is_file()), None)  # fmt: skip
    entries = as_mapping("dataset_info.json", store.read_json(register) if register else {})
    open_names = [name for name in names if name not in entries]
    if open_names and str(place) != "ONLINE":  # there a name is a Hub id
        conversion.notes.append(
            f"{', '.join(open_names)} stands in a dataset_info.json that is not here: name the file or Hub set"
        )
    parts = [part for name in names for part in _entry(name, entries.get(name), register, conversion)]
    if "data.limit" in conversion.tree and len(names) > 1:
        conversion.tree["data.limit"] *= len(names)
        conversion.notes.append("max_samples is of each data set there; data.limit is of all of them together")
    return parts


def _entry(name: str, row: Any, register: Path | None, conversion: Conversion) -> list[Part]:
    """What stands behind a name of LLaMA-Factory's register: a Hub set goes before a file."""
    if row is None or register is None:
        return [Part(name)]
    entry = as_mapping(name, row)
    columns = as_mapping(f"columns of {name}", entry.get("columns"))
    is_plain = entry.get("formatting", "alpaca") == "alpaca"
    renamed = {key: value for key, value in columns.items() if value != (ALPACA.get(key) if is_plain else key)}
    if is_plain and renamed and set(columns) == {"prompt", "chosen", "rejected"}:
        conversion.tree["data.columns"] = dict(columns)
    elif renamed and (is_plain or renamed != {"messages": "conversations"}):
        conversion.notes.append(
            f"columns of {name} are not carried over: they are found by their names, or named with --columns"
        )
    if hub := entry.get("hf_hub_url"):
        names = _name(entry, name=str(hub), subset=entry.get("subset"), conversion=conversion)
        return [Part(hub_name, _split(entry)) for hub_name in names]
    if file := entry.get("file_name"):
        return [Part(str(register.parent / file))]
    conversion.notes.append(f"{name} lies neither in a file nor on the Hub: name it yourself")
    return [Part(name)]


def _axolotl(conversion: Conversion) -> list[Part]:
    rows = [as_mapping("datasets", row) for row in as_list("datasets", conversion.get("datasets"))]
    carried = ("path", "name", "split", "ds_type", "data_files", "revision")
    if any(key for row in rows for key in row if key not in carried):
        conversion.notes.append(
            "types and fields of its datasets are not carried over: columns are found by their names, and what is not "
            "found is named with --columns"
        )
    return [
        Part(name, _split(row))
        for row in rows
        for name in _name(row, name=str(row.get("path") or ""), subset=row.get("name"), conversion=conversion)
    ]
