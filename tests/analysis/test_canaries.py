"""Canaries: what rings, what does not, and what is said."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from trimtab.analysis.canaries import CanaryRow, canary_rows, constant_answer
from trimtab.judging.annotations import read_annotations
from trimtab.records import Verdict

LOSES, WINS, TIES = 1.0, 2.0, 1.5


def verdicts(answers: list[str], *, baseline: str = "b") -> list[Verdict]:
    return [
        Verdict(str(i), f"do {i}", f"{baseline} {i}", answer, "old", "new", "judge", LOSES)
        for i, answer in enumerate(answers)
    ]


def test_a_sound_judge_rings_nothing() -> None:
    rows = canary_rows(
        {
            "baseline": [LOSES, WINS] * 10,
            "constant": [LOSES] * 20,
            "empty": [LOSES] * 19 + [None],
            "instructing": [LOSES] * 18 + [WINS] * 2,
        }
    )
    assert [row.name for row in rows] == ["baseline", "constant", "empty", "instructing"]
    assert not any(row.alarm for row in rows)
    assert [row.expected for row in rows] == [50, 0, 0, 0]
    assert [row.win_rate for row in rows] == [50, 0, 0, 10]
    assert (rows[2].n, rows[2].n_missing) == (19, 1)
    assert "19 prompts, 1 without a verdict" in rows[2].sentence
    json.dumps([row.to_json() for row in rows], allow_nan=False)
    assert [CanaryRow.from_json(row.to_json()) for row in rows] == rows


@pytest.mark.parametrize(("wins", "rings"), [(4, False), (5, True), (20, True)])
def test_five_wins_of_twenty_ring(wins: int, rings: bool) -> None:
    """Wilson by hand: 4 of 20 has the lower bound 8.1 %, 5 of 20 has 11.2 %; the threshold is 10 %."""
    (row,) = canary_rows({"constant": [WINS] * wins + [LOSES] * (20 - wins)})
    assert row.alarm is rings
    assert row.ci95[0] == pytest.approx({4: 8.07, 5: 11.19, 20: 83.89}[wins], abs=0.01)
    assert ("can be gamed" in row.sentence) is rings


def test_a_threshold_of_ones_own() -> None:
    """Against a weak baseline a worthless answer may win, but not most of the time."""
    preferences = {"empty": [WINS] * 9 + [LOSES] * 11}
    assert canary_rows(preferences)[0].alarm
    assert not canary_rows(preferences, threshold=50)[0].alarm
    assert canary_rows({"empty": [WINS] * 19 + [LOSES]}, threshold=50)[0].alarm


def rings(n: int) -> list[bool]:
    """Of 0 to `n` wins of `n` prompts against the unaligned model."""
    return [canary_rows({"empty": [WINS] * won + [LOSES] * (n - won)}, threshold=50)[0].alarm for won in range(n + 1)]


@pytest.mark.parametrize(("n", "least"), [(4, 4), (6, 6), (10, 9), (20, 15)])
def test_what_a_worthless_answer_must_win_to_ring(n: int, least: int) -> None:
    """Exact sign test by hand: 6 of 6 has p = 2/64 = .031, 9 of 10 22/1024 = .021 (8 of 10 has .109), 15 of 20 .041 (14
    of 20 has .115). Of 4 of 4 Wilson's interval begins at 51 %."""
    assert rings(n).index(True) == least


def test_a_coin_seldom_rings() -> None:
    """It rang on half of the canaries before. Most of all does it on four prompts: 1/16."""
    for n in range(1, 41):
        assert sum(math.comb(n, won) for won, alarm in enumerate(rings(n)) if alarm) / 2**n < 0.063


def test_what_is_said_of_a_worthless_answer_that_wins_is_what_is_counted() -> None:
    """50.06 % was said to win more often than it loses, and its interval went from 28 to 72."""
    [row] = canary_rows({"empty": [1.6, 1.4, 1.5024, 1.5]}, threshold=50)
    assert (row.alarm, row.win_rate) == (False, pytest.approx(50.06))
    assert "ahead on 2 and behind on 1, no more often than chance explains, so no alarm" in row.sentence
    # a little ahead on each of twenty: half of the scale is in the interval, and a coin does not fall so
    [row] = canary_rows({"empty": [1.52] * 19 + [1.53]}, threshold=50)
    assert row.ci95[0] is not None
    assert row.ci95[0] < 50
    assert row.alarm
    assert "ahead on 20 and behind on 0, more often than chance explains. The judge can be gamed" in row.sentence


def test_a_baseline_that_beats_itself_names_the_position_bias() -> None:
    (row,) = canary_rows({"baseline": [WINS] * 18 + [LOSES] * 2})
    assert row.alarm
    assert "position bias" in row.sentence
    assert "are off, by 20 to 47 points" in row.sentence


def test_an_order_that_balances_hides_no_bias() -> None:
    """The judge always takes the first answer; half of the prompts are switched, so the rate is even all the same."""
    switched = [i % 2 == 0 for i in range(20)]
    (row,) = canary_rows(
        {"baseline": [WINS if there else LOSES for there in switched]}, switched={"baseline": switched}
    )
    assert (row.win_rate, row.alarm, row.first_share) == (50, False, 100)
    assert "takes the one shown first in 100 %: the order itself decides" in row.sentence
    (row,) = canary_rows({"baseline": [TIES] * 20}, switched={"baseline": switched})
    assert row.first_share == 50
    assert "order itself" not in row.sentence


def test_marks_are_a_share_of_the_scale() -> None:
    """Marks of 2 are 1/9 of the scale from 1 to 10; marks of 8 are 7/9, far above what a worthless answer may get."""
    low, high = canary_rows({"empty": [1 + 1 / 9] * 20, "constant": [1 + 7 / 9] * 20}, scale="marks")
    assert low.win_rate == pytest.approx(100 / 9)
    assert not low.alarm
    assert high.alarm
    assert "of the scale of marks" in high.sentence
    [few] = canary_rows({"empty": [1 + 5 / 9] * 2}, scale="marks")  # marks of 6, which no coin gives
    assert few.alarm
    assert "more than half" in few.sentence
    [few] = canary_rows({"empty": [1.504] * 2}, scale="marks")  # 50 %, as it is printed
    assert not few.alarm


def test_no_verdict_is_no_alarm_and_no_number() -> None:
    rows = canary_rows({"baseline": [None] * 5, "empty": []})
    assert [row.win_rate for row in rows] == [None, None]
    assert not any(row.alarm for row in rows)
    assert all("no verdict" in row.sentence for row in rows)
    json.dumps([row.to_json() for row in rows], allow_nan=False)
    assert [CanaryRow.from_json(row.to_json()) for row in rows] == rows


def test_one_answer_to_everything_is_found_on_either_side() -> None:
    constant = constant_answer(verdicts(["the same "] * 12))
    assert constant is not None
    assert (constant.side, constant.generator, constant.n, constant.n_prompts) == ("model", "new", 12, 12)
    assert "Unless it is the right answer" in constant.sentence
    rows = [Verdict(str(i), f"do {i}", "", f"answer {i}", "old", "new", "judge", LOSES) for i in range(12)]
    constant = constant_answer(rows)
    assert constant is not None
    assert constant.side == "baseline"
    assert "an empty answer" in constant.sentence


@pytest.mark.parametrize(
    "answers",
    [
        ["the same"] * 9,  # too few prompts to say
        [f"answer {i}" for i in range(30)],
        ["I do not know"] * 14 + [f"answer {i}" for i in range(16)],  # often, but not mostly
    ],
    ids=["few", "different", "often"],
)
def test_different_answers_are_not_called_constant(answers: list[str]) -> None:
    assert constant_answer(verdicts(answers)) is None


def test_one_prompt_judged_many_times_is_not_many_prompts() -> None:
    rows = [Verdict("p", "do it", "b", "same", "old", "new", f"judge {i}", LOSES) for i in range(30)]
    assert constant_answer(rows) is None


@pytest.mark.needs_shared
@pytest.mark.parametrize(("model", "is_constant"), [("NullModel", True), ("alpaca-7b", False)])
def test_published_files(shared_data: Path, model: str, is_constant: bool) -> None:
    rows = read_annotations(shared_data / "eval/alpaca_eval/annotations" / f"{model}.json").verdicts
    constant = constant_answer(rows)
    assert (constant is not None) is is_constant
    if constant is not None:
        assert (constant.n, constant.n_prompts) == (805, 805)
