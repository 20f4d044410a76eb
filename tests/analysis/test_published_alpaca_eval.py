"""Published AlpacaEval judgments must give back the published leaderboard."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from trimtab.analysis.l1_logistic import fit_exact, fit_liblinear, sigmoid
from trimtab.analysis.length_control import (
    INVERSE_PENALTIES,
    Design,
    _prediction,
    _regularisers,
)
from trimtab.analysis.summary import summarise
from trimtab.analysis.winrate import scores_from, win_rate
from trimtab.judging.annotations import read_annotations, read_difficulty, read_gamed
from trimtab.judging.benchmarks import read_benchmark
from trimtab.records import Verdict

pytestmark = pytest.mark.needs_shared

MODELS = ["alpaca-7b", "gpt-3.5-turbo-1106_concise", "FuseChat-Qwen-2.5-7B-Instruct", "NullModel"]
STALE_WEIGHTS = {"NullModel"}  # its published weights do not give its own published win rate (off by .133)


@pytest.fixture(scope="module")
def folder(shared_data: Path) -> Path:
    return shared_data / "eval" / "alpaca_eval"


@cache
def table(path: Path) -> dict[str, dict[str, str]]:
    """A CSV file by its first, nameless column."""
    with path.open(encoding="utf-8", newline="") as file:
        return {row[""]: row for row in csv.DictReader(file)}


@cache
def verdicts_of(path: Path) -> tuple[Verdict, ...]:
    return read_annotations(path).verdicts


def leaderboard(folder: Path, model: str) -> Mapping[str, str]:
    return table(folder / "leaderboards" / "weighted_alpaca_eval_gpt4_turbo_leaderboard.csv")[model]


def weights(folder: Path, model: str) -> list[float]:
    """a, c, k."""
    name = "weighted_alpaca_eval_gpt4_turbo__length_controlled_v1__baseline_gpt4_1106_preview.csv"
    return [float(value) for value in list(table(folder / "weights" / name)[model].values())[1:]]


def design_of(folder: Path, model: str) -> Design:
    verdicts = verdicts_of(folder / "annotations" / f"{model}.json")
    return Design(
        scores_from(v.preference for v in verdicts),
        np.array([float(len(v.output_1) - len(v.output_2)) for v in verdicts]),
        np.array(read_difficulty(folder / "instruction_difficulty_recovered.csv")),
        _regularisers(read_gamed(folder / "df_gamed_reconstructed.csv"), with_difficulty=True),
    )


@pytest.mark.parametrize("model", MODELS)
def test_raw_win_rate(folder: Path, model: str) -> None:
    published = leaderboard(folder, model)
    rate = win_rate(v.preference for v in verdicts_of(folder / "annotations" / f"{model}.json"))
    assert rate.win_rate == pytest.approx(float(published["win_rate"]), abs=1e-9)
    assert rate.standard_error == pytest.approx(float(published["standard_error"]), abs=1e-9)
    assert rate.n_total == int(published["n_total"])
    assert rate.n_wins == int(published["n_wins"])
    assert rate.n_losses == int(published["n_wins_base"])


@pytest.mark.parametrize("model", ["alpaca-7b", "zephyr-7b-beta"])
def test_raw_win_rate_of_the_first_version(folder: Path, model: str) -> None:
    """AlpacaEval 1: legacy ties (0) and judgments without a preference."""
    published = table(folder / "leaderboards" / "alpaca_eval_gpt4_leaderboard.csv")[model]
    verdicts = verdicts_of(folder / "annotations_ae1" / f"{model}.json")
    rate = win_rate(v.preference for v in verdicts)
    assert rate.win_rate == pytest.approx(float(published["win_rate"]), abs=1e-9)
    assert rate.standard_error == pytest.approx(float(published["standard_error"]), abs=1e-9)
    assert rate.n_total == int(published["n_total"])
    assert rate.n_total + rate.n_missing == len(verdicts)
    assert rate.n_ties == int(published["n_draws"])


@pytest.mark.parametrize("model", [model for model in MODELS if model not in STALE_WEIGHTS])
def test_published_weights_give_the_published_rate(folder: Path, model: str) -> None:
    _, c, k = weights(folder, model)
    difficulty = read_difficulty(folder / "instruction_difficulty_recovered.csv")
    rate = 100 * float(sigmoid(c * np.array(difficulty) + k).mean())
    assert rate == pytest.approx(float(leaderboard(folder, model)["length_controlled_winrate"]), abs=1e-6)


@pytest.mark.parametrize("model", [model for model in MODELS if model not in STALE_WEIGHTS])
def test_a_fit_at_the_published_penalty(folder: Path, model: str) -> None:
    """At the one grid value that was published, both solvers give the published weights and rate."""
    design = design_of(folder, model)
    rows = design.training_rows()
    published = np.array(weights(folder, model))
    fits = {c: fit_liblinear(rows, inverse_penalty=c) for c in INVERSE_PENALTIES}
    nearest = min(fits, key=lambda c: float(np.abs(fits[c] - published).max()))
    exact = fit_exact(rows, inverse_penalty=nearest)
    rate = float(leaderboard(folder, model)["length_controlled_winrate"])
    assert np.abs(fits[nearest] - published).max() < 2.5e-3
    assert np.abs(exact - published).max() < 2.5e-3
    assert _prediction(design.prediction_features(), fits[nearest]) == pytest.approx(rate, abs=0.02)
    assert _prediction(design.prediction_features(), exact) == pytest.approx(rate, abs=0.02)


@pytest.mark.parametrize("model", MODELS)
def test_the_whole_path(folder: Path, model: str) -> None:
    told = summarise(
        verdicts_of(folder / "annotations" / f"{model}.json"),
        difficulty=read_difficulty(folder / "instruction_difficulty_recovered.csv"),
        regularisers=read_gamed(folder / "df_gamed_reconstructed.csv"),
    ).to_json()
    published = leaderboard(folder, model)
    rate = float(published["length_controlled_winrate"])
    assert told["length_controlled_winrate"] == pytest.approx(rate, abs=0.2)
    assert told["lc_variant"] == "length_controlled_v1"
    assert told["avg_length"] == int(published["avg_length"])
    low, high = told["lc_ci95"]
    assert low < rate < high
    assert high - low > 2 * told["standard_error"]


def test_joined_by_instruction_or_by_position(folder: Path) -> None:
    """The official order of instructions gives the same difficulties, also to a file whose rows were shuffled."""
    verdicts = verdicts_of(folder / "annotations" / "alpaca-7b.json")
    difficulty = read_difficulty(folder / "instruction_difficulty_recovered.csv")
    gamed = read_gamed(folder / "df_gamed_reconstructed.csv")
    official = [prompt.instruction for prompt in read_benchmark(folder / "instructions_805.json").prompts]
    by_position = summarise(verdicts, difficulty=difficulty, regularisers=gamed).to_json()
    shuffled = summarise(verdicts[::-1], difficulty=difficulty, regularisers=gamed, instructions=official).to_json()
    assert shuffled["length_controlled_winrate"] == pytest.approx(by_position["length_controlled_winrate"], abs=0.02)
    assert shuffled["lc_c"] == by_position["lc_c"]


@pytest.mark.parametrize("model", ["alpaca-7b", "zephyr-7b-beta"])
def test_length_control_of_the_first_version(folder: Path, model: str) -> None:
    """AlpacaEval 1 is controlled with the same tables. Near the published choice of C; half a point, because that
    choice depends on how the folds fall."""
    told = summarise(
        verdicts_of(folder / "annotations_ae1" / f"{model}.json"),
        difficulty=read_difficulty(folder / "instruction_difficulty_recovered.csv"),
        regularisers=read_gamed(folder / "df_gamed_reconstructed.csv"),
    ).to_json()
    published = table(folder / "leaderboards" / "alpaca_eval_gpt4_leaderboard.csv")[model]
    rate = float(published["length_controlled_winrate"])
    assert told["length_controlled_winrate"] == pytest.approx(rate, abs=0.5)
    assert min(abs(near - rate) for near in told["lc_neighbours"].values()) < 0.2


def test_one_constant_answer_wins_and_is_not_believed(folder: Path) -> None:
    told = summarise(verdicts_of(folder / "annotations" / "NullModel.json")).to_json()
    assert told["win_rate"] > 76
    assert told["constant_answer"]["n"] == 805
    assert "Unless it is the right answer to them, these numbers say nothing about quality" in told["warnings"][0]
