"""Every sentence of a report has a run in which it must not stand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from report_runs import LOSS, WIN, a_config, a_judged_run, a_run, make_report, page, write_json
from trimtab.runtime.folder import Folder


def of_alpaca(out: Path) -> Any:
    return a_config(out, benchmark="alpaca_eval", judge="openai:gpt-4o", model="tiny")


def text_of(numbers: dict[str, Any]) -> str:
    return " ".join(sentence["text"] for sentence in numbers["headline"]).replace("\u00a0", " ")


def cut(folder: Folder, *, before: int = 0, after: int = 0, n_tokens: int | None = None) -> None:
    """The first answers of either side cut at the limit; with `n_tokens` all of both sides as long as that."""
    for path, n_cut in ((folder.baseline_answers("windtunnel"), before), (folder.answers("windtunnel"), after)):
        rows = json.loads(path.read_text())
        write_json(
            path,
            [row | {"finished": i >= n_cut, "n_tokens": n_tokens or row["n_tokens"]} for i, row in enumerate(rows)],
        )


# --- lengths ---------------------------------------------------------------------------------------------------------


def test_answers_all_cut_at_the_limit_have_not_kept_their_length(tmp_path: Path) -> None:
    cut(a_run(tmp_path, {"oracle": [WIN] * 20}), before=20, after=20, n_tokens=64)
    text = text_of(make_report(a_config(tmp_path)))
    assert "Whether answers kept their length is not known" in text
    assert "100.0 % before and 100.0 % after were cut at the limit" in text
    assert "are as long as they were" not in text
    assert "those cut at the limit would have been longer" in page(a_config(tmp_path))


def test_answers_that_are_all_equally_long_and_whole_are_as_long_as_they_were(tmp_path: Path) -> None:
    cut(a_run(tmp_path, {"oracle": [WIN] * 20}), n_tokens=64)
    text = text_of(make_report(a_config(tmp_path)))
    assert "Answers are as long as they were" in text
    assert "cut at the limit" not in text


@pytest.mark.parametrize(
    ("words", "before", "after", "says", "leaves_out"),
    [
        ("a good answer and one word more and another", 0, 10, "Answers grew longer", "is not known"),
        ("a good answer and one word more and another", 10, 0, "is not known", "grew longer"),
        ("short", 10, 0, "Answers became shorter", "is not known"),
        ("short", 0, 10, "is not known", "became shorter"),
    ],
    ids=["longer at least", "longer perhaps", "shorter at least", "shorter perhaps"],
)
def test_cut_answers_decide_only_what_whole_ones_would(
    tmp_path: Path, words: str, before: int, after: int, says: str, leaves_out: str
) -> None:
    """A whole answer would be longer than a cut one: that can only add to a difference on its own side."""
    cut(a_run(tmp_path, {"oracle": [WIN] * 20}, after=words), before=before, after=after)
    text = text_of(make_report(a_config(tmp_path)))
    assert says in text
    assert leaves_out not in text
    assert "50.0 %" in text


def test_length_control_is_promised_only_where_it_stands(tmp_path: Path) -> None:
    """The oracle sees no length and is not controlled for it; the biased judge is."""
    words = "a good answer and one word more and another"
    a_run(tmp_path / "truth", {"oracle": [WIN] * 20}, after=words)
    assert "length control corrects" not in text_of(make_report(a_config(tmp_path / "truth")))
    judged = a_run(tmp_path / "judged", {"oracle": [WIN, LOSS] * 20, "biased": [1.9, 1.1, 1.6] * 13 + [1.5]})
    texts = ["word " * (1 + i % 20) for i in range(40)]
    for file, key in (
        (judged.answers("windtunnel"), "output"),
        (judged.verdicts("windtunnel", "oracle"), "output_2"),
        (judged.verdicts("windtunnel", "biased"), "output_2"),
    ):
        rows = [row | {key: text} for row, text in zip(json.loads(file.read_text()), texts, strict=True)]
        write_json(file, [row | ({"n_tokens": len(row[key].split())} if key == "output" else {}) for row in rows])
    assert "length control corrects" in text_of(make_report(a_config(tmp_path / "judged")))


def test_without_the_unaligned_model_nothing_is_said_to_be_the_same_before_and_after(tmp_path: Path) -> None:
    a_judged_run(tmp_path, [WIN] * 30 + [LOSS] * 30)
    make_report(of_alpaca(tmp_path))
    assert "letter by letter, from the baseline and the aligned model" in page(of_alpaca(tmp_path))
