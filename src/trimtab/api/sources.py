"""What a Python program has in memory, as what a run reads: a file of pairs and a model's folder.

Both lie in the global cache under a name that their content gives them. So a run that stopped goes on when it is given
the same values again, and one that is given others is told that its data or its weights have changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from trimtab import store
from trimtab.errors import ConfigError, DataError, require_package
from trimtab.records import Pair, Unpaired, digest

Row = dict[str, Any]
Rows = Callable[[], Iterator[Row]]
FORMS = "a path, a Hub data set, or rows: dicts, Pair or Unpaired values, a datasets.Dataset, a pandas or polars frame"


def pair_source(pairs: Any) -> str:
    """The name of a source that `trimtab audit` reads: `pairs` itself where it is one, else a JSONL file with its rows.

    Raises DataError, naming the row, for what is no row.
    """
    if isinstance(pairs, str | Path):
        return str(pairs)
    return str(rows_file(_rows(pairs, "pairs"), "pairs"))


def rows_file(rows: Rows, folder: str) -> Path:
    """A JSONL file in `folder` of the global cache, named by the sha256 of its lines. `rows` is asked twice at most."""
    total = hashlib.sha256()
    for row in rows():
        total.update(json.dumps(row, allow_nan=False, sort_keys=True).encode() + b"\n")
    path = store.home() / folder / f"{total.hexdigest()}.jsonl"
    if not path.is_file():
        store.write_jsonl(path, rows())
    return path


def answers_file(answers: Iterable[Mapping[str, Any]]) -> Path:
    """AlpacaEval's `model_outputs` in the global cache, named by their content. Raises DataError for what is no row."""
    rows = list(_rows(answers, "answers")())
    path = store.home() / "answers" / f"answers-{digest(rows)[:16]}.json"
    store.write_json(path, rows)
    return path


def _rows(values: Any, argument: str) -> Rows:
    if hasattr(values, "with_format") and hasattr(values, "features") and hasattr(values, "data"):
        return lambda: _of_dataset(values, argument)
    if hasattr(values, "__arrow_c_stream__"):
        return lambda: _of_frame(values, argument)
    if isinstance(values, Mapping) or not isinstance(values, Iterable):
        names = ", ".join(map(str, list(values)[:3])) if isinstance(values, Mapping) else ""
        split = f"; choose one of its parts: {names}" if names else ""
        raise DataError(f"{argument} is a {type(values).__name__}", remedy=f"give {FORMS}{split}")
    checked = [_as_row(value, place, argument) for place, value in enumerate(values)]
    return lambda: iter(checked)


def _of_dataset(dataset: Any, argument: str) -> Iterator[Row]:
    from trimtab.data.hub import LoadedSplit

    for place, (_, row) in enumerate(LoadedSplit(dataset.with_format(None), "memory", "").rows()):
        yield _as_row(row, place, argument)


def _of_frame(frame: Any, argument: str) -> Iterator[Row]:
    """Rows of anything that speaks Arrow; a missing cell is None. A pandas frame's index is no column."""
    require_package("pyarrow", extra="hub", reason="a frame of rows")
    import pyarrow  # type: ignore[import-untyped]  # pyarrow publishes no types

    place = 0
    for batch in pyarrow.RecordBatchReader.from_stream(frame):
        for row in batch.to_pylist():
            columns = {name: cell for name, cell in row.items() if not name.startswith("__index_level_")}
            yield _as_row(columns, place, argument)
            place += 1


def _as_row(value: Any, place: int, argument: str) -> Row:
    if isinstance(value, Pair | Unpaired):
        return {"prompt": [m.to_json() for m in value.prompt]} | _responses(value) | _template_columns(value)
    if not isinstance(value, Mapping):
        raise DataError(f"{argument}[{place}] is a {type(value).__name__}", remedy=f"give {FORMS}")
    row = dict(value)
    try:
        json.dumps(row, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(
            f"{argument}[{place}]: {error}", remedy="a row holds texts, numbers, lists and dicts of them"
        ) from None
    return row


def _responses(row: Pair | Unpaired) -> dict[str, object]:
    """As texts, or as messages where one of them is more than its text."""
    names = ("chosen", "rejected") if isinstance(row, Pair) else ("completion",)
    is_text = not any(response.extras for response in row.responses)
    sides: dict[str, object] = {
        name: response.content if is_text else [message.to_json() for message in response.turns]
        for name, response in zip(names, row.responses, strict=True)
    }
    return sides if isinstance(row, Pair) else sides | {"label": row.label}


def _template_columns(pair: Pair | Unpaired) -> dict[str, object]:
    arguments = json.loads(pair.template_arguments or "{}")
    tools = {"tools": arguments.pop("tools")} if "tools" in arguments else {}
    return tools | ({"chat_template_kwargs": arguments} if arguments else {})


# --- the model -------------------------------------------------------------------------------------------------------


def model_source(model: Any, tokenizer: Any) -> str:
    """A name or folder: `model` itself where it is one, else a folder with its weights and `tokenizer`.

    A PEFT model is kept with its adapters merged, in fp32; `model` stays as it was. Raises ConfigError for what is no
    model, or comes without a tokenizer, NumericsError for weights that are not finite.
    """
    if isinstance(model, str | Path):
        if tokenizer is not None:
            raise ConfigError(f"tokenizer has no effect: {model} has its own", remedy="leave it out")
        return str(model)
    if not hasattr(model, "save_pretrained") or not hasattr(model, "named_parameters"):
        raise ConfigError(
            f"model is a {type(model).__name__}",
            remedy="give a Hub id, a folder, or a loaded transformers or PEFT model with its tokenizer",
        )
    if tokenizer is None:
        raise ConfigError("a loaded model comes without a tokenizer", remedy="add tokenizer=")
    from trimtab.engine import loaded_model

    return str(loaded_model.folder_of(model, tokenizer))
