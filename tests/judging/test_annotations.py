"""Annotation files and the tables of length control, from disk."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from trimtab.errors import DataError
from trimtab.judging.annotations import read_annotations, read_difficulty, read_gamed

ROW = {
    "instruction": "do", "output_1": "old", "output_2": "new", "generator_1": "base", "generator_2": "model",
    "annotator": "judge", "preference": 2.0,
}  # fmt: skip
GAMED = "model,preference,index,std_delta_len,instruction_difficulty,not_gamed_baseline\n"


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("form", ["list", "lines", "gzip"])
def test_three_forms_of_one_file(tmp_path: Path, form: str) -> None:
    rows = [ROW, ROW | {"instruction": "other", "preference": None}]
    text = "\n".join(map(json.dumps, rows)) if form == "lines" else json.dumps(rows)
    path = tmp_path / "annotations.json"
    path.write_bytes(gzip.compress(text.encode()) if form == "gzip" else text.encode())
    assert [v.preference for v in read_annotations(path).verdicts] == [2.0, None]


def test_a_nan_that_python_wrote_is_no_verdict(tmp_path: Path) -> None:
    path = written(tmp_path, "a.json", json.dumps([ROW | {"preference": float("nan")}]))
    assert read_annotations(path).verdicts[0].preference is None


def test_rows_that_are_no_objects(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.json, row 2: expected an object, found text"):
        read_annotations(written(tmp_path, "a.json", json.dumps([ROW, "x"])))


@pytest.mark.parametrize("header", ["index,instruction_difficulty", ",instruction_difficulty"])
def test_difficulty_comes_in_the_order_of_its_index(tmp_path: Path, header: str) -> None:
    assert read_difficulty(written(tmp_path, "d.csv", f"{header}\n1,0.5\n0,-1e-1\n2,3\n")) == [-0.1, 0.5, 3.0]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "holds no rows"),
        ("index,instruction_difficulty\n", "holds no rows"),
        ("index,instruction_difficulty\n0,1\n2,1\n", "no row for index 1"),
        ("index,instruction_difficulty\n0,1\n0,1\n", "row 2: index 0 is not new"),
        ("index,instruction_difficulty\n0,hard\n", "row 1: 'instruction_difficulty' is 'hard', not a finite number"),
        ("index,instruction_difficulty\n0,nan\n", "not a finite number"),
        ("index,difficulty\n0,1\n", "has no column 'instruction_difficulty'; it has index, difficulty"),
        ("index,instruction_difficulty\n0,1,2\n", "row 1 has 3 cells, the header 2"),
    ],
)
def test_a_damaged_difficulty_file(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint) as error:
        read_difficulty(written(tmp_path, "d.csv", text))
    assert error.value.remedy


def test_regularising_rows_by_column(tmp_path: Path) -> None:
    path = written(tmp_path, "g.csv", GAMED + "verbose,0.75,0,-1.5,0.25,False\nconcise,0.1,0,2,0.25,False\n")
    assert read_gamed(path) == {
        "preference": [0.75, 0.1],
        "std_delta_len": [-1.5, 2.0],
        "instruction_difficulty": [0.25, 0.25],
    }


def test_a_preference_that_was_not_reduced_by_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 1: 'preference' is not in \[0, 1\]"):
        read_gamed(written(tmp_path, "g.csv", GAMED + "verbose,1.75,0,-1.5,0.25,False\n"))


@pytest.mark.needs_shared
def test_published_files(shared_data: Path) -> None:
    folder = shared_data / "eval" / "alpaca_eval"
    assert len(read_difficulty(folder / "instruction_difficulty_recovered.csv")) == 805
    assert {len(column) for column in read_gamed(folder / "df_gamed_reconstructed.csv").values()} == {1610}
    told = read_annotations(folder / "annotations_ae1" / "zephyr-7b-beta.json")
    assert len(told.verdicts) == 805
    assert any(v.preference is None for v in told.verdicts)
    assert told.price is not None
