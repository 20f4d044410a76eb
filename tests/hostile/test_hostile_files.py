"""Data, annotations, answers and judgments that somebody spoilt, by chance or on purpose."""

from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path

import pytest
from hostile_calls import harmless, nothing_new, put, refused
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimtab.data import files as data_files
from trimtab.judging import files as judging_files

FUZZ = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
LONG_FUZZ = settings(max_examples=2500, deadline=None, suppress_health_check=list(HealthCheck))
SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".jsonl.gz")
NASTY = ("", "\x00", "\x1b[2J", "\u202e", "\ud800", "=cmd|' /C calc'!A1", "<script>alert(1)</script>", "a" * 70_000,
         "Human: x\n\nAssistant: y", "\n\nHuman:", "../../etc/passwd", "${HOME}", "{{ 7*7 }}", "NaN")  # fmt: skip

TEXTS = st.one_of(st.text(max_size=20), st.sampled_from(NASTY))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.sampled_from(["role", "content", "from", "value"]), TEXTS), inner, max_size=3),
    ),
    max_leaves=6,
)
PARTS = st.sampled_from(
    ["prompt", "chosen", "rejected", "conversations", "conversation", "system", "question", "messages", "meta"]
)
PAIRS = st.lists(st.dictionaries(st.one_of(PARTS, PARTS, TEXTS), VALUES, max_size=5), max_size=4)
JUDGED = st.sampled_from(
    ["instruction", "output_1", "output_2", "generator_1", "generator_2", "annotator", "preference", "prompt_id",
     "dataset",
     "output", "generator", "question_id", "model_id", "choices", "turns", "model", "judge", "score", "turn", "tstamp"]
)  # fmt: skip
ROWS = st.lists(st.dictionaries(st.one_of(JUDGED, JUDGED, TEXTS), VALUES, max_size=9), max_size=4)
NOISE = st.one_of(
    st.binary(max_size=120), st.text(max_size=120).map(lambda text: text.encode("utf-8", "surrogatepass"))
)


def written(value: object, *, lines: bool) -> bytes:
    rows = value if lines and isinstance(value, list) else [value]
    return "\n".join(json.dumps(row) for row in rows).encode()


def audited(suffix: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as made:
        path = put(Path(made) / f"rows{suffix}", gzip.compress(content) if suffix.endswith(".gz") else content)
        with nothing_new(Path(made)):
            harmless("audit", path)
            harmless("audit", path, "--json")


def judged(suffix: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as made:
        path = put(Path(made) / f"rows{suffix}", content)
        other = put(Path(made) / "other.json", [verdict(k) for k in range(4)])
        with nothing_new(Path(made)):
            harmless("winrate", path)
            harmless("winrate", path, "--json", "--allow-missing")
            harmless("winrate", path, "--kind", "mt_bench")
            harmless("compare", path, other)
            harmless("arena", path, other, "--no-browser", "--limit", "0")
            harmless("judge", path, "--benchmark", other, "--judge", "openai:x", "--base-url", "http://127.0.0.1:9/v1",
                     "--out", Path(made) / "out" / "\x00")  # fmt: skip


def verdict(k: int, **keys: object) -> dict[str, object]:
    row: dict[str, object] = {"instruction": f"q{k}", "output_1": "a", "output_2": f"b{k}", "generator_1": "base"}
    return row | {"generator_2": "m", "annotator": "x", "preference": 1 + k % 2} | keys


@FUZZ
@given(st.sampled_from(SUFFIXES), NOISE)
def test_data_of_noise(suffix: str, content: bytes) -> None:
    audited(suffix, content)


@FUZZ
@given(st.sampled_from([".jsonl", ".json"]), PAIRS)
def test_data_of_other_rows(suffix: str, rows: list[object]) -> None:
    audited(suffix, written(rows, lines=suffix == ".jsonl"))


@FUZZ
@given(ROWS, st.booleans())
def test_judgments_of_other_rows(rows: list[object], lines: bool) -> None:
    judged(".jsonl" if lines else ".json", written(rows, lines=lines))


@FUZZ
@given(NOISE)
def test_judgments_of_noise(content: bytes) -> None:
    judged(".json", content)


@pytest.mark.slow
@LONG_FUZZ
@given(
    st.one_of(
        st.tuples(st.sampled_from(SUFFIXES), NOISE), PAIRS.map(lambda rows: (".jsonl", written(rows, lines=True)))
    )
)
def test_data_at_length(given_file: tuple[str, bytes]) -> None:
    audited(*given_file)


@pytest.mark.slow
@LONG_FUZZ
@given(st.one_of(NOISE, ROWS.map(lambda rows: written(rows, lines=True))))
def test_judgments_at_length(content: bytes) -> None:
    judged(".jsonl", content)


DEEP = b"[" * 100_000
MADE_TO_HARM = {
    "deep": DEEP,
    "deep in a row": b'{"prompt": ' + DEEP,
    "digits": b'{"prompt": ' + b"9" * 5000 + b"}",
    "infinite": b'[{"preference": Infinity, "prompt": NaN}]',
    "a list in a list": b"[[[]]]",
    "one number": b"7",
    "utf-16": "[{}]".encode("utf-16"),
    "nul": b"\x00" * 100,
    "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "gzip cut": gzip.compress(b"[{}]")[:-4],
    "surrogate": b'[{"instruction": "\\ud800", "output_1": "\\ud800", "output_2": "b", "generator_1": "\\ud801", '
    b'"generator_2": "\\udfff", "annotator": "\\ud800", "preference": 2}]',
}


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
@pytest.mark.parametrize("name", MADE_TO_HARM)
def test_files_that_were_made_to_harm(name: str, suffix: str) -> None:
    audited(suffix, MADE_TO_HARM[name])
    if suffix in {".jsonl", ".json"}:
        judged(suffix, MADE_TO_HARM[name])


def test_a_small_file_that_unzips_to_a_large_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """1 GiB of zeros is a megabyte on disk; the limits are lowered here, for the test's own sake."""
    monkeypatch.setattr(judging_files, "LARGEST_FILE", 2**22)
    monkeypatch.setattr(data_files, "LONGEST_LINE", 2**22)
    bomb = put(tmp_path / "rows.jsonl.gz", gzip.compress(b"[" + b" " * 2**24))
    assert "GiB" in refused("winrate", bomb)
    assert "line 1" in refused("audit", bomb)


def test_a_folder_with_code_for_a_data_set_runs_none(tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    put(folder / "rows.py", f"from pathlib import Path\nPath({str(tmp_path / 'owned')!r}).mkdir()\n")
    put(
        folder / "dataset_info.json",
        {"builder_name": "rows", "features": {"x": {"_type": "os.system", "id": "touch owned"}}},
    )
    put(
        folder / "state.json",
        {"_data_files": [{"filename": "../../../../etc/passwd"}], "_fingerprint": "x", "_format_type": "pickle"},
    )
    with nothing_new(tmp_path):
        refused("audit", folder)


def test_a_spreadsheet_cell_and_an_escape_sequence_are_shown_and_not_obeyed(tmp_path: Path) -> None:
    rows = [
        {"prompt": text, "chosen": f"{text} yes", "rejected": "\x1b]0;owned\x07no"}
        for text in NASTY
        if text != "\ud800"
    ]
    told = harmless("audit", put(tmp_path / "rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows)))
    assert "\x1b" not in told.text
