"""What `trimtab winrate FILE` says: its keys, its joins and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from trimtab.analysis.summary import align_difficulty, summarise
from trimtab.errors import DataError
from trimtab.records import Verdict

KEYS = {
    "win_rate", "standard_error", "n_total", "n_missing", "length_controlled_winrate", "lc_c", "lc_ci95", "avg_length",
    "lc_variant", "lc_neighbours", "lc_notes", "n_wins", "n_losses", "n_ties", "ci95", "model",
    "baseline", "annotators", "warnings", "constant_answer", "by_dataset", "by_length_gap",
}  # fmt: skip


def verdicts(n: int, *, model: str = "model", win: float = 0.6, long: int = 10) -> list[Verdict]:
    rng = np.random.default_rng(0)
    return [
        Verdict(
            prompt_id=str(i),
            instruction=f"do {i}",
            output_1="x" * int(rng.integers(20, 40)),
            output_2="y" * int(rng.integers(20, 40) + long),
            generator_1="base",
            generator_2=model,
            annotator="judge",
            preference=1.0 + float(rng.random() < win),
        )
        for i in range(n)
    ]


def test_keys_and_valid_json() -> None:
    tree = summarise(verdicts(60)).to_json()
    assert set(tree) >= KEYS
    json.dumps(tree, allow_nan=False)
    assert tree["lc_variant"] == "length_controlled_minimal"
    assert (tree["model"], tree["baseline"], tree["annotators"]) == ("model", "base", ["judge"])


def test_three_rows_have_a_raw_rate_and_no_controlled_one() -> None:
    tree = summarise(verdicts(3)).to_json()
    json.dumps(tree, allow_nan=False)
    assert tree["win_rate"] is not None
    assert tree["length_controlled_winrate"] is None
    assert tree["lc_ci95"] == [None, None]


def test_average_length_is_cut_down_to_whole_characters() -> None:
    rows = verdicts(2)
    lengths = [len(v.output_2) for v in rows]
    assert summarise(rows).avg_length == sum(lengths) // 2


def test_the_baseline_against_itself_is_fifty() -> None:
    """By its answers, not by its name: two models of one name are two (LC was 50 where 63.58 is right)."""
    rows = [replace(row, output_2=row.output_1) for row in verdicts(40)]
    assert summarise(rows).length_controlled.length_controlled_winrate == 50
    of_one_name, of_two = (summarise(verdicts(40, model=name, win=0.9)) for name in ("base", "model"))
    assert of_one_name.length_controlled == of_two.length_controlled
    assert of_one_name.length_controlled.length_controlled_winrate != 50


def test_a_result_that_length_carries_is_marked() -> None:
    """Half the answers are long and win, half short and lose, and all the model's are long: control takes it away."""
    rng = np.random.default_rng(1)
    rows = []
    for i in range(200):
        longer = i % 10 != 0
        wins = longer if rng.random() < 0.95 else not longer
        rows.append(
            Verdict(str(i), f"do {i}", "x" * 50, "y" * (90 if longer else 10), "base", "model", "judge", 1.0 + wins)
        )
    summary = summarise(rows)
    fit = summary.length_controlled
    assert summary.raw.win_rate - fit.length_controlled_winrate > 25
    assert any("far from the raw win rate" in note for note in fit.notes)


def test_a_rate_that_the_penalty_shrank_is_not_put_down_to_length() -> None:
    """Nine wins of twelve at lengths that have nothing to do with them: LC is 50 by the penalty, 25 points from raw."""
    rows = [
        Verdict(str(i), f"do {i}", "x" * 50, "y" * (50 + 7 * (i % 3 - 1)), "base", "model", "judge", 1.0 + (i % 4 != 0))
        for i in range(12)
    ]
    summary = summarise(rows)
    assert (summary.raw.win_rate, summary.length_controlled.length_controlled_winrate) == (75.0, 50.0)
    assert any("shrunk to exactly 50" in note for note in summary.length_controlled.notes)
    assert not any("far from the raw win rate" in note for note in summary.length_controlled.notes)


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([], "no verdicts"),
        ([*verdicts(2), *verdicts(2, model="other")], "about 2 models: model, other"),
    ],
)
def test_what_is_not_one_comparison_is_refused(rows: list[Verdict], complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        summarise(rows)


def test_difficulty_by_position_and_by_text() -> None:
    rows = verdicts(3)
    assert align_difficulty(rows, [0.1, 0.2, 0.3]) == ([0.1, 0.2, 0.3], ())
    assert align_difficulty(rows, [0.1, 0.2, 0.3], ["do 2", "do 0", "do 1"]) == ([0.2, 0.3, 0.1], ())


def test_fewer_rows_by_position_leave_a_note() -> None:
    values, notes = align_difficulty(verdicts(2), [0.1, 0.2, 0.3])
    assert values == [0.1, 0.2]
    assert "2 rows for 3 difficulties" in notes[0]


def test_difficulties_of_another_benchmark_are_refused() -> None:
    with pytest.raises(DataError, match="3 verdicts but only 2 difficulties"):
        align_difficulty(verdicts(3), [0.1, 0.2])
    with pytest.raises(DataError, match="1 verdicts are about instructions that have no difficulty, first 'do 2'"):
        align_difficulty(verdicts(3), [0.1, 0.2], ["do 0", "do 1"])
    with pytest.raises(DataError, match="1 instructions for 2 difficulties"):
        align_difficulty(verdicts(3), [0.1, 0.2], ["do 0"])


def test_bins_of_length_hold_every_row() -> None:
    bins = summarise(verdicts(100)).by_length_gap
    assert sum(bin.rate.n_total for bin in bins) == 100
    assert [bin.shortest for bin in bins] == sorted(bin.shortest for bin in bins)
    assert all(bin.shortest <= bin.longest for bin in bins)
    assert all(bin.rate.ci95[0] <= bin.rate.win_rate <= bin.rate.ci95[1] for bin in bins)


def test_data_sets_are_told_apart_where_there_are_two() -> None:
    rows = verdicts(40)
    assert summarise(rows).to_json()["by_dataset"] == []
    named = [replace(row, dataset="koala" if i % 4 else "oasst") for i, row in enumerate(rows)]
    rates = summarise(named).by_dataset
    assert [(dataset, rate.n_total) for dataset, rate in rates.items()] == [("oasst", 10), ("koala", 30)]


def test_one_answer_to_everything_is_warned_of() -> None:
    summary = summarise([replace(row, output_2="Yes.") for row in verdicts(40)])
    assert summary.constant is not None
    assert summary.constant.n == 40
    assert "say nothing about quality" in summary.warnings[0]
    assert summarise(verdicts(40)).warnings == ()
