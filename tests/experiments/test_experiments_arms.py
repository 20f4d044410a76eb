"""Experiments of arms, from results whose answers are known."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from experiments.arms import command

from experiments import on_policy_rounds, unpaired_labels


def test_without_results_the_command_says_how_to_make_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["experiment"])
    for module in (on_policy_rounds, unpaired_labels):
        command(module.__doc__, make=module.make, lines=module.lines, kept=tmp_path / "none.jsonl")
        assert capsys.readouterr().out == "No results are kept yet: --runs FOLDER makes them.\n"


def test_rounds_are_compared_on_the_seeds_that_one_round_has_too() -> None:
    rows = [
        {"arm": arm, "seed": seed, "after": {"true_scores": [low, low + 0.25, low + 0.5 + 0.01 * seed], "words": 9.0}}
        for arm, low, seeds in (("single", 0.25, (0, 1)), ("newest", 0.5, (0, 1, 2)))
        for seed in seeds
    ]
    text = on_policy_rounds.lines(rows)
    # single: (25 + 50 + 75.5) / 3 over seeds 0 and 1; newest is 25 points above it everywhere
    assert [line.partition(" [")[0] for line in text] == [
        "single: 50.2",
        "newest: 75.2",
        "newest less one round: +25.0",
    ]
    assert text[1].endswith("2 seeds")


def test_the_share_of_the_paired_gain() -> None:
    rows = [
        {"arm": arm, "seed": seed, "wins": wins, "skipped_backward": skipped}
        for arm, wins, skipped in (("pairs", [1.0, 0.5, 1.0, 0.5], 0.25), ("kto", [1.0, 0.5, 0.5, 0.5], 0.0))
        for seed in (0, 1)
    ]
    text = unpaired_labels.lines(rows)
    # gains of 25 and 12.5 points: half of the pairs' gain, 10 points short of nine tenths of it
    assert text[0].startswith("pairs: gain +25.0")
    assert text[0].endswith("25% of response tokens without a backward pass")
    assert text[1].startswith("kto: gain +12.5")
    assert text[2].startswith("  50% of the pairs' gain; beyond 90% of it: −10.0")
