"""Rows from files, saved folders and the Hub; and the message for every mistake a person makes with them."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from pyarrow import parquet

from trimtab.data.hub import HubName, load_hub
from trimtab.data.mixture import row_counts
from trimtab.data.sources import draw, draw_groups, read_rows
from trimtab.errors import DataError

ROWS = [{"prompt": f"Why {n}?", "chosen": f'yes,\n"{n}" é\u2028', "rejected": "no"} for n in range(3)]


def write_json_lines(folder: Path) -> Path:
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n", encoding="utf-8")
    return path


def write_json(folder: Path) -> Path:
    path = folder / "pairs.json"
    path.write_text(json.dumps(ROWS, indent=1), encoding="utf-8")
    return path


def write_json_object(folder: Path) -> Path:
    path = folder / "pairs.json"
    path.write_text(json.dumps({"version": 2, "data": ROWS}), encoding="utf-8")
    return path


def write_json_lines_called_json(folder: Path) -> Path:
    return write_json_lines(folder).rename(folder / "lines.json")


def write_list_called_json_lines(folder: Path) -> Path:
    return write_json(folder).rename(folder / "list.jsonl")


def write_csv(folder: Path, delimiter: str = ",", name: str = "pairs.csv") -> Path:
    path = folder / name
    lines = [delimiter.join(ROWS[0])]
    lines += [delimiter.join('"' + value.replace('"', '""') + '"' for value in row.values()) for row in ROWS]
    path.write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8", newline="")
    return path


def write_parquet(folder: Path) -> Path:
    path = folder / "pairs.parquet"
    parquet.write_table(pa.Table.from_pylist(ROWS), path)
    return path


def zipped(write: Callable[[Path], Path]) -> Callable[[Path], Path]:
    def write_zipped(folder: Path) -> Path:
        plain = write(folder)
        path = plain.with_name(plain.name + ".gz")
        path.write_bytes(gzip.compress(plain.read_bytes()))
        return path

    return write_zipped


def write_saved(folder: Path) -> Path:
    datasets.Dataset.from_list(ROWS).save_to_disk(folder / "saved")
    return folder / "saved"


def write_saved_splits(folder: Path) -> Path:
    train = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict({"test": train.select([0]), "train": train}).save_to_disk(folder / "splits")
    return folder / "splits"


# writer, the ids of its rows
SOURCES: dict[str, tuple[Callable[[Path], Path], list[str]]] = {
    "jsonl": (write_json_lines, ["pairs.jsonl:1", "pairs.jsonl:2", "pairs.jsonl:3"]),
    "jsonl.gz": (zipped(write_json_lines), ["pairs.jsonl.gz:1", "pairs.jsonl.gz:2", "pairs.jsonl.gz:3"]),
    "json": (write_json, ["pairs.json:1", "pairs.json:2", "pairs.json:3"]),
    "json.gz": (zipped(write_json), ["pairs.json.gz:1", "pairs.json.gz:2", "pairs.json.gz:3"]),
    "json object": (write_json_object, ["pairs.json:1", "pairs.json:2", "pairs.json:3"]),
    "json lines called json": (write_json_lines_called_json, ["lines.json:1", "lines.json:2", "lines.json:3"]),
    "list called json lines": (write_list_called_json_lines, ["list.jsonl:1", "list.jsonl:2", "list.jsonl:3"]),
    "csv": (write_csv, ["pairs.csv:2", "pairs.csv:4", "pairs.csv:6"]),
    "csv.gz": (zipped(write_csv), ["pairs.csv.gz:2", "pairs.csv.gz:4", "pairs.csv.gz:6"]),
    "csv of a spreadsheet": (lambda folder: write_csv(folder, ";"), ["pairs.csv:2", "pairs.csv:4", "pairs.csv:6"]),
    "tsv": (lambda folder: write_csv(folder, "\t", "pairs.tsv"), ["pairs.tsv:2", "pairs.tsv:4", "pairs.tsv:6"]),
    "parquet": (write_parquet, ["pairs.parquet:1", "pairs.parquet:2", "pairs.parquet:3"]),
    "saved": (write_saved, ["saved[all]:1", "saved[all]:2", "saved[all]:3"]),
}


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path, list[str]]:
    write, ids = SOURCES[request.param]
    return request.param, write(tmp_path), ids


def test_every_source_gives_the_same_rows_and_ids(source: tuple[str, Path, list[str]]) -> None:
    name, path, ids = source
    rows = read_rows(str(path), offline=True)
    assert list(rows) == list(zip(ids, ROWS, strict=True))
    assert list(rows) == list(zip(ids, ROWS, strict=True)), "rows can be visited again"
    assert rows.total == (3 if name in ("parquet", "saved") else None)
    limited = read_rows(str(path), limit=2)
    assert [row_id for row_id, _ in limited] == ids[:2]
    assert limited.total in (2, None)
    assert limited.digest == rows.digest


def test_the_digest_is_of_the_bytes(tmp_path: Path) -> None:
    path = write_json_lines(tmp_path)
    assert read_rows(str(path)).digest == hashlib.sha256(path.read_bytes()).hexdigest()
    before = read_rows(str(write_saved(tmp_path))).digest
    assert read_rows(str(tmp_path / "saved")).digest == before
    changed = [*ROWS[:2], {**ROWS[2], "chosen": "other"}]
    datasets.Dataset.from_list(changed).save_to_disk(tmp_path / "other")
    assert read_rows(str(tmp_path / "other")).digest != before


def test_a_split_can_be_named(tmp_path: Path) -> None:
    path = write_saved_splits(tmp_path)
    assert [row_id for row_id, _ in read_rows(str(path), split="test")] == ["splits[test]:1"]
    with pytest.raises(DataError, match="splits found: test, train") as caught:
        read_rows(str(path), split="tset")
    assert caught.value.remedy == "name one of them, for instance: --data.split test"
    with pytest.raises(DataError, match="several splits in it: test, train") as caught:
        read_rows(str(path), split_key="data.eval_split")
    assert caught.value.remedy == "name one of them: --data.eval_split NAME"
    with pytest.raises(DataError, match="has no splits"):
        read_rows(str(write_json_lines(tmp_path)), split="train")


def test_lines_are_streamed(tmp_path: Path) -> None:
    """A broken last line is met only when it is reached."""
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(json.dumps(ROWS[0]) for _ in range(200)) + "\n{broken")
    assert len(list(read_rows(str(path), limit=200))) == 200
    with pytest.raises(DataError, match="line 201"):
        list(read_rows(str(path)))


def test_blank_lines_are_passed_over_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n" + json.dumps(ROWS[0]) + "\n  \r\n" + json.dumps(ROWS[1]))
    assert [row_id for row_id, _ in read_rows(str(path))] == ["pairs.jsonl:2", "pairs.jsonl:4"]


def test_a_long_csv_cell_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("prompt,chosen,rejected\na," + "x" * 300_000 + ",b\n")
    assert len(next(iter(read_rows(str(path))))[1]["chosen"]) == 300_000


# ---- mistakes: content of a file, what is said of it -----------------------------------------------------------------

GOOD = json.dumps(ROWS[0]).encode()
MISTAKES: dict[str, tuple[str, bytes, str, str]] = {
    "broken JSON on line 17": (
        "pairs.jsonl",
        b"\n".join([GOOD] * 16 + [b'{"prompt": "a", "chosen": }'] + [GOOD]),
        "pairs.jsonl, line 17: broken JSON: Expecting value at column 27",
        "sed -n 17p pairs.jsonl",
    ),
    "broken JSON in gzip": (
        "pairs.jsonl.gz",
        gzip.compress(GOOD + b"\n{"),
        "pairs.jsonl.gz, line 2: broken JSON",
        "zcat pairs.jsonl.gz | sed -n 2p",
    ),
    "broken JSON document": (
        "pairs.json",
        b'[\n{"prompt": "a"}\n{}]',
        "line 3: broken JSON: Expecting ','",
        "sed -n 3p",
    ),
    "text in place of an object": ("pairs.jsonl", GOOD + b'\n"prompt"', "line 2: text where an object", '{"prompt": …'),
    "number in a list": ("pairs.json", b"[1]", "entry 1: a number where an object", '{"prompt": …'),
    "JSON of another form": ("pairs.json", b"3", "holds a number where a list of objects", ".jsonl"),
    "two lists": ("pairs.json", b'{"train": [],\n "test": []}', "lists found: 'train', 'test'", ".jsonl"),
    "no list": ("pairs.json", b'{"prompt":\n"a"}', "lists found: none", ".jsonl"),
    "nested without end": ("pairs.jsonl", b"[" * 200_000, "nested too deeply", "line"),
    "endless number": ("pairs.jsonl", GOOD + b'\n{"a": ' + b"1" * 5000 + b"}", "line 2: broken JSON: Exceeds", "sed"),
    "Latin-1": (
        "pairs.jsonl",
        GOOD + b'\n{"prompt": "caf\xe9"}',
        "pairs.jsonl, line 2, byte 16: 0xe9 is not UTF-8",
        "< pairs.jsonl iconv -f WINDOWS-1252 -t UTF-8 > fixed.jsonl",
    ),
    "UTF-16": ("pairs.jsonl", GOOD.decode().encode("utf-16"), "line 1: UTF-16 is not UTF-8", "iconv -f UTF-16"),
    "empty": ("pairs.jsonl", b"", "the file is empty", "at least one row"),
    "blank": ("pairs.jsonl", b"\n\n", "there are no rows", "at least one row"),
    "header alone": ("pairs.csv", b"prompt,chosen,rejected\n", "there are no rows", "at least one row"),
    "empty list": ("pairs.json", b"[]", "there are no rows", "at least one row"),
    "Git LFS pointer": (
        "pairs.jsonl",
        b"version https://git-lfs.github.com/spec/v1\noid",
        "a Git LFS pointer",
        "git lfs pull",
    ),
    "gzip cut short": ("pairs.jsonl.gz", gzip.compress(GOOD * 50)[:-20], "damaged gzip", "download"),
    "gzip with a wrong sum": (
        "pairs.jsonl.gz",
        gzip.compress(GOOD)[:-8] + b"\0\0\0\0" + gzip.compress(GOOD)[-4:],
        "damaged gzip: CRC check failed",
        "download",
    ),
    "no Parquet": ("pairs.parquet", b"PAR1 and no more", "damaged, or no Parquet file", "again"),
    "short CSV row": (
        "pairs.csv",
        b"prompt,chosen,rejected\na,b,c\nd,e\n",
        "line 3: 2 cells where the header has 3",
        '""',
    ),
    "open quote": ("pairs.csv", b'prompt,chosen,rejected\na,"b,c\n', "broken CSV: unexpected end of data", "quoted"),
    "column twice": (
        "pairs.csv",
        b"prompt,prompt,rejected\na,b,c\n",
        "line 1: the header has column 'prompt' twice",
        "once",
    ),
    "nameless column": ("pairs.csv", b"prompt,,rejected\na,b,c\n", "a column without a name", "once"),
    "unknown ending": (
        "pairs.xlsx",
        b"PK",
        "'.xlsx' is not a data format",
        ".jsonl, .ndjson, .json, .csv, .tsv, .parquet",
    ),
    "no ending": ("pairs", b"{}", "'pairs' is not a data format", ".jsonl"),
    "another packer": ("pairs.jsonl.zst", b"\x28\xb5", "'.zst' is not a data format", "gzipped"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_a_file_is_named_with_its_place_and_remedy(name: str, tmp_path: Path) -> None:
    filename, content, message, remedy = MISTAKES[name]
    path = tmp_path / filename
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        list(read_rows(str(path), offline=True))
    assert str(path) in caught.value.message
    assert message in caught.value.message
    assert remedy in caught.value.remedy
    assert caught.value.exit_code == 2


def test_a_missing_file_is_not_looked_for_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json_lines(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # no file of another name is near
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("the Hub was asked"))
    for source, remedy in {
        str(tmp_path / "pair.jsonl"): f"did you mean {tmp_path}/pairs.jsonl?",
        str(tmp_path / "none" / "pairs.jsonl"): f"there is no folder {tmp_path}/none",
        "pairs.jsonl.gz": "check the path",
        "./pairs": "check the path",
        "https://example.org/pairs.jsonl": "download the file first",
        "a/b/c": "check the path",
    }.items():
        with pytest.raises(DataError, match="no such file") as caught:
            read_rows(source)
        assert remedy in caught.value.remedy, source


def test_a_folder_that_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a folder, but not one made by save_to_disk; no data file is in it"):
        read_rows(str(tmp_path))
    (tmp_path / "data").mkdir()
    write_parquet(tmp_path / "data")
    with pytest.raises(DataError, match="1 data files are in it") as caught:
        read_rows(str(tmp_path))
    assert caught.value.remedy == f"name one file, for instance: {tmp_path}/data/pairs.parquet"


def test_a_damaged_saved_data_set(tmp_path: Path) -> None:
    path = write_saved(tmp_path)
    next(path.glob("*.arrow")).write_bytes(b"cut short")
    with pytest.raises(DataError, match="saved data set cannot be loaded") as caught:
        read_rows(str(path))
    assert "save_to_disk" in caught.value.remedy


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_json_lines(tmp_path)
    path.chmod(0)
    if os.access(path, os.R_OK):  # the superuser may read everything, so the system's answer is played

        def refuse(self: Path, *_: object) -> None:
            raise PermissionError(13, "Permission denied", str(self))

        monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError) as caught:
        read_rows(str(path))
    assert caught.value.message == f"{path}: no permission to read it"
    assert "chmod u+r" in caught.value.remedy


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_below_one(limit: int, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"limit is {limit}"):
        read_rows(str(write_json_lines(tmp_path)), limit=limit)


# ---- the Hub ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """A loader in place of the Hub's that keeps what it was asked for."""
    asked: list[tuple[Any, ...]] = []

    def load_dataset(name: str, subset: str | None, *, revision: str | None) -> datasets.DatasetDict:
        asked.append((name, subset, revision, datasets.config.HF_HUB_OFFLINE))
        train = datasets.Dataset.from_list(ROWS)
        return datasets.DatasetDict({"train": train, "test": train.select([1])})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr("trimtab.data.hub._unknown_host", lambda: None)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    return asked


def test_a_hub_data_set_is_read_by_its_name(hub: list[tuple[Any, ...]]) -> None:
    rows = read_rows("trl-lib/some_set", split="train", limit=2)
    assert [row_id for row_id, _ in rows] == ["trl-lib/some_set[train]:1", "trl-lib/some_set[train]:2"]
    assert (rows.total, len(rows.digest)) == (2, 64)
    assert read_rows("trl-lib/some_set", split="train").digest == rows.digest
    assert read_rows("trl-lib/some_set", split="test").digest != rows.digest
    read_rows("trl-lib/some_set:subset@v1.0", split="train")
    assert hub[0] == ("trl-lib/some_set", None, None, False)
    assert hub[-1] == ("trl-lib/some_set", "subset", "v1.0", False)


def test_offline_answers_from_the_cache_alone(hub: list[tuple[Any, ...]]) -> None:
    read_rows("trl-lib/some_set", split="train", offline=True)
    assert hub == [("trl-lib/some_set", None, None, True)]
    assert datasets.config.HF_HUB_OFFLINE is False, "the setting is put back"


def test_a_hub_data_set_that_is_not_in_the_cache() -> None:
    with pytest.raises(DataError, match=r"no such file or folder here, and the Hub's local cache") as caught:
        read_rows("no-one/no-such-set", offline=True)
    assert "--offline" in caught.value.remedy


@pytest.mark.parametrize(
    ("error", "message", "remedy"),
    [
        (datasets.exceptions.DatasetNotFoundError("Dataset 'a/b' doesn't exist"), "no such data set", "hf auth login"),
        (datasets.exceptions.DatasetNotFoundError("'a/b' is a gated dataset on the Hub."), "gated", "accept its terms"),
        (ConnectionError("Couldn't reach 'a/b' on the Hub"), "cannot be reached", "or the network"),
        (
            ValueError("Config name is missing.\nPlease pick one"),
            "onfig name is missing",
            "name one subset: a/b:SUBSET",
        ),
        (datasets.exceptions.DataFilesNotFoundError("No data files in a/b"), "cannot be loaded", "JSON lines"),
        (RuntimeError("Dataset scripts are no longer supported"), "scripts are no longer supported", "JSON lines"),
    ],
    ids=["missing", "gated", "no network", "subset", "no files", "script"],
)
def test_what_the_hub_refuses_is_said_with_a_remedy(
    error: Exception, message: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", fail)
    monkeypatch.setattr("trimtab.data.hub._unknown_host", lambda: None)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    with pytest.raises(DataError, match=message) as caught:
        read_rows("a/b")
    assert remedy in caught.value.remedy


def test_the_room_is_light_to_import() -> None:
    """A local file is audited without torch, transformers or datasets."""
    code = (
        "import sys\nfrom trimtab.data import audit, chat, formats, loading, sources\n"
        "print([name for name in ('torch', 'transformers', 'datasets', 'pyarrow') if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"


# ---- columns that hold JSON ------------------------------------------------------------------------------------------

# answers as texts, and what `datasets` stores of each in a Json column
STORED = {
    "plain answer": '"plain answer"',
    "42": "42",
    "true": "true",
    "null": "null",
    "0.010": "0.010",
    '{"x": 1}': '{"x": 1}',
    "[]": "[]",
    "[1, 2]": "[1, 2]",
    '[{"x": 1}]': '[{"x": 1}]',
    ' "q"\n': ' "q"\n',
    '{"role": "king"}': '{"role": "king"}',
    '{"role": "user", "content": "x"}': '{"role": "user", "content": "x"}',  # no content is a message
    '[{"role": "king"}]': '[{"role": "king"}]',
    '[{"type": "text"}]': '[{"type": "text"}]',
    'a "quoted" word and \u2028': '"a \\"quoted\\" word and \\u2028"',
    "{broken": "{broken",
}


@pytest.mark.parametrize("form", ["parquet", "typed by datasets alone", "saved"])
def test_texts_in_json_columns_come_back_as_they_were(form: str, tmp_path: Path) -> None:
    """datasets 5.2.0 types `content` as Json for all rows once one holds a list of parts, and hands back 42, true and
    dictionaries for texts that spell them. Right: the very texts."""
    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    answers = pa.array([[{"role": "assistant", "content": stored}] for stored in STORED.values()], pa.list_(message))
    if form != "typed by datasets alone":
        content = pa.ExtensionArray.from_storage(pa.json_(), answers.flatten().field("content"))
        records = pa.StructArray.from_arrays([answers.flatten().field("role"), content], ["role", "content"])
        answers = pa.ListArray.from_arrays(answers.offsets, records)
    whole = pa.array(['[{"role": "user", "content": "42"}]', "[]", '"text"', None, "7"] * 4, pa.string())
    whole = whole if form == "typed by datasets alone" else pa.ExtensionArray.from_storage(pa.json_(), whole)
    table = pa.table({"chosen": answers, "prompt": whole[: len(STORED)]})
    json_type, text = {"_type": "Json"}, {"dtype": "string", "_type": "Value"}
    features = {"chosen": {"feature": {"role": text, "content": json_type}, "_type": "List"}, "prompt": json_type}
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    if form == "saved":
        datasets.Dataset(table).save_to_disk(str(tmp_path / "saved"))
        rows = list(read_rows(str(tmp_path / "saved")))
    else:
        parquet.write_table(table, tmp_path / "rows.parquet")
        rows = list(read_rows(str(tmp_path / "rows.parquet")))
    assert [row["chosen"][0]["content"] for _, row in rows] == list(STORED)
    assert [row["prompt"] for _, row in rows[:5]] == [[{"role": "user", "content": "42"}], [], "text", None, "7"]


def test_other_fields_of_messages_are_parsed(tmp_path: Path) -> None:
    """An empty list of tool calls is none, however it is stored."""
    message = pa.struct([("role", pa.string()), ("content", pa.string()), ("tool_calls", pa.json_())])
    calls = pa.ExtensionArray.from_storage(pa.json_(), pa.array(["[]", '[{"function": {"name": "f"}}]', None]))
    texts = pa.array(["yes", "no", "[]"])
    records = pa.StructArray.from_arrays([pa.array(["assistant"] * 3), texts, calls], fields=list(message))
    parquet.write_table(pa.table({"chosen": records}), tmp_path / "rows.parquet")
    rows = [row["chosen"] for _, row in read_rows(str(tmp_path / "rows.parquet"))]
    assert [row["tool_calls"] for row in rows] == [[], [{"function": {"name": "f"}}], None]
    assert [row["content"] for row in rows] == ["yes", "no", "[]"]


def test_parts_in_json_columns_are_parts(tmp_path: Path) -> None:
    stored = ['[{"type":"text","text":"hello"}]', '"{\\"x\\": 1}"']
    content = pa.ExtensionArray.from_storage(pa.json_(), pa.array(stored))
    parquet.write_table(pa.table({"chosen": content}), tmp_path / "rows.parquet")
    assert [row["chosen"] for _, row in read_rows(str(tmp_path / "rows.parquet"))] == [
        [{"type": "text", "text": "hello"}],
        '{"x": 1}',
    ]


@pytest.mark.parametrize(
    ("sizes", "weights", "limit", "counts"),
    [
        ([30, 40], [2, 1], None, [30, 15]),  # 30 · 3/2 = 45 in all
        ([30, 40], [2, 1], 12, [8, 4]),
        ([300, 100], None, 40, [30, 10]),  # by size
        ([10, 10, 10], [1, 1, 1], 10, [4, 3, 3]),  # 10/3 each: the first of equal remainders
        ([7, 100], [0.1, 0.2], None, [7, 14]),  # decimals as written: .3 is three tenths
        ([5, 5], [1, 1], 100, [5, 5]),
    ],
)
def test_row_counts(sizes: list[int], weights: list[float] | None, limit: int | None, counts: list[int]) -> None:
    fractions = weights and [Fraction(repr(weight)) for weight in weights]
    assert row_counts(sizes, fractions, limit=limit) == counts


def test_drawn_rows_keep_their_numbers(source: tuple[str, Path, list[str]]) -> None:
    """Two of three rows, the same from every kind of source."""
    _, path, ids = source
    for seed in range(4):
        places = draw(3, 2, seed=seed)
        drawn = list(read_rows(str(path), limit=2, seed=seed))
        assert drawn == [(ids[place], ROWS[place]) for place in places]
    assert len({tuple(draw(3, 2, seed=seed)) for seed in range(20)}) == 3


def test_groups_are_drawn_whole() -> None:
    """Groups of 2, 3, 1 and 4 places; in their own order 2 + 3 fit into 5, and 1 more into 6."""
    starts = [0, 2, 5, 6]
    assert draw_groups(starts, 10, 5, seed=None) == draw_groups(starts, 10, 5, seed=None) == [0, 1, 2, 3, 4]
    assert draw_groups(starts, 10, 6, seed=None) == [0, 1, 2, 3, 4, 5]
    assert draw_groups(starts, 10, 9, seed=None) == [0, 1, 2, 3, 4, 5]  # the next one has four
    assert draw_groups(starts, 10, 1, seed=None) == [0, 1]  # one at least
    groups = [{0, 1}, {2, 3, 4}, {5}, {6, 7, 8, 9}]
    for seed in range(20):
        fewer: set[int] = set()
        for limit in range(1, 11):
            places = set(draw_groups(starts, 10, limit, seed=seed))
            assert all(group <= places or not group & places for group in groups)
            assert fewer <= places
            assert len(places) <= max(limit, 4)
            fewer = places
        assert fewer == set(range(10))


def test_draws_of_all_and_of_more_than_all() -> None:
    assert draw(10, 4, seed=0) == draw(10, 4, seed=2**64)
    assert draw(10, 10, seed=3) == list(range(10))
    assert draw(10, 99, seed=3) == list(range(10))


def test_without_an_address_of_the_hub_nothing_is_tried_five_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library would ask again for a minute, with a warning each time; a cached data set is still read."""

    def no_address(host: str, _port: object) -> None:
        raise socket.gaierror(-2, f"{host}: Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_address)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    started = time.monotonic()
    with pytest.raises(DataError, match=r"cannot be reached: huggingface\.co has no address here"):
        load_hub(HubName("owner/not-in-any-cache"), split=None, offline=False)
    assert time.monotonic() - started < 10
