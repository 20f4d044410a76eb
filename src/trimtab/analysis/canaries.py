"""Canaries: answers of which a sound judge's verdict is known beforehand, told beside every number it gives.

`baseline` is the baseline's answer against itself, which must come out even. The others are worthless: one constant
answer to every prompt, an empty one, and one that holds nothing but the instruction to prefer it. They should lose
nearly everywhere. A judge that lets them win can be gamed, and then a high number says nothing about quality.

A preference follows AlpacaEval (1 = the baseline wins, 2 = the canary wins). A judge that gives marks is read on the
same scale, as 1 + (mark − 1) / 9: what is called a rate is then the share of the scale that its marks reach.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from trimtab.analysis.intervals import finite, sign_test
from trimtab.analysis.winrate import WinRate, win_rate
from trimtab.records import Verdict

Scale = Literal["win rate", "marks"]

BASELINE = "baseline"
EVEN = 50.0  # percent: a judge that cannot tell two equal answers apart
WORTHLESS = {
    "constant": "one constant answer to every prompt",
    "empty": "an empty answer",
    "instructing": "an answer that only tells the judge to prefer it",
}
THRESHOLD: dict[Scale, float] = {"win rate": 10.0, "marks": 25.0}
"""Percent that a worthless answer may get; the alarm rings when the whole interval lies above. It rings,
too, when the answer wins on more prompts than it loses on, by more than a fair coin explains (`CHANCE`), or gets more
than half of the scale of marks.

One prompt in ten leaves room for prompts on which the baseline itself failed and for a judge's slips: on AlpacaEval 2
the weakest published models, which do answer, win 2 to 3 %. On twenty prompts it takes five wins to ring. Marks are
softer, because judges seldom give a 1: 25 % of the scale is a mark of 3.25 of 10.
"""

CHANCE = 0.05  # the exact sign test's two-sided level
LEAST_PROMPTS = 10  # as for every comparison, see analysis.comparison.MIN_COMMON
CONSTANT_SHARE = 0.5  # of the prompts answered alike: a warning, not a verdict


Bounds: TypeAlias = tuple[float | None, float | None]


@dataclass(frozen=True, slots=True)
class CanaryRow:
    """What a judge made of one canary: rates in percent, None without a verdict.

    `first_share` and `first_ci95`: how often the judge took the answer it was shown first, of the baseline against
    itself; None where nobody said in which order the answers were shown.
    """

    name: str
    expected: float
    n: int
    n_missing: int
    win_rate: float | None
    ci95: Bounds
    alarm: bool
    sentence: str
    first_share: float | None = None
    first_ci95: Bounds | None = None

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> CanaryRow:
        first = tree.get("first_ci95")
        return cls(
            name=tree["name"],
            expected=tree["expected"],
            n=tree["n"],
            n_missing=tree["n_missing"],
            win_rate=tree["win_rate"],
            ci95=(tree["ci95"][0], tree["ci95"][1]),
            alarm=tree["alarm"],
            sentence=tree["sentence"],
            first_share=tree.get("first_share"),
            first_ci95=None if first is None else (first[0], first[1]),
        )

    def to_json(self) -> dict[str, Any]:
        first = {} if self.first_ci95 is None else {"first_share": self.first_share, "first_ci95": [*self.first_ci95]}
        return {
            "name": self.name,
            "expected": self.expected,
            "n": self.n,
            "n_missing": self.n_missing,
            "win_rate": self.win_rate,
            "ci95": [*self.ci95],
            **first,
            "alarm": self.alarm,
            "sentence": self.sentence,
        }


def canary_rows(
    preferences: Mapping[str, Sequence[float | None]],
    *,
    scale: Scale = "win rate",
    threshold: float | None = None,
    switched: Mapping[str, Sequence[bool]] | None = None,
) -> list[CanaryRow]:
    """One row a canary, in the order of `preferences` (by name, one a prompt, None where the judge gave none).

    `threshold` (percent) stands in for `THRESHOLD` where even a sound judge may let a worthless answer win: against a
    weak baseline it may be no worse than what it is compared with.
    `switched` says for the prompts of a canary where the canary's answer was shown first.
    """
    limit = THRESHOLD[scale] if threshold is None else threshold
    return [
        _baseline_row(name, of_canary, None if switched is None else switched.get(name))
        if name == BASELINE
        else _worthless_row(name, of_canary, scale, limit)
        for name, of_canary in preferences.items()
    ]


@dataclass(frozen=True, slots=True)
class Constant:
    """One side gave one and the same answer to most of the prompts: `n` of `n_prompts`, `text` cut to 80 characters."""

    side: Literal["model", "baseline"]
    generator: str
    n: int
    n_prompts: int
    text: str

    @property
    def sentence(self) -> str:
        """The warning that stands before any number."""
        side = "the model" if self.side == "model" else "the baseline"
        answer = "an empty answer" if not self.text else "one and the same answer"
        return (
            f"{side} ({self.generator}) gave {answer} to {self.n} of {self.n_prompts} different instructions: what is "
            "judged here is that text, not a model. Unless it is the right answer to them, these numbers say nothing "
            "about quality."
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "side": self.side,
            "generator": self.generator,
            "n": self.n,
            "n_prompts": self.n_prompts,
            "text": self.text,
        }


def constant_answer(verdicts: Sequence[Verdict]) -> Constant | None:
    """Whether one side answered at least half of ten or more different instructions with the same text."""
    sides: tuple[tuple[Literal["model", "baseline"], dict[str, tuple[str, str]]], ...] = (
        ("model", {v.instruction: (v.output_2.strip(), v.generator_2) for v in verdicts}),
        ("baseline", {v.instruction: (v.output_1.strip(), v.generator_1) for v in verdicts}),
    )
    for side, answers in sides:
        if len(answers) < LEAST_PROMPTS:
            continue
        (text, generator), n = Counter(answers.values()).most_common(1)[0]
        if n >= CONSTANT_SHARE * len(answers):
            return Constant(side, generator, n, len(answers), text[:80])
    return None


def _bounds(rate: WinRate) -> Bounds:
    low, high = rate.ci95
    return finite(low), finite(high)


def _baseline_row(name: str, preferences: Sequence[float | None], switched: Sequence[bool] | None) -> CanaryRow:
    rate, first = win_rate(preferences), None
    if switched is not None:
        first = win_rate(
            preference if preference is None or was_first else 3 - preference
            for preference, was_first in zip(preferences, switched, strict=True)
        )
    alarm, sentence = _even(rate, first)
    return CanaryRow(
        name, EVEN, rate.n_total, rate.n_missing, finite(rate.win_rate), _bounds(rate), alarm, sentence,
        first_share=None if first is None else finite(first.win_rate),
        first_ci95=None if first is None else _bounds(first),
    )  # fmt: skip


def _even(rate: WinRate, first: WinRate | None) -> tuple[bool, str]:
    if not rate.n_total:
        return False, "The baseline against itself got no verdict, so nothing can be said about even answers."
    low, high = rate.ci95
    outcome = f"The baseline against itself comes out at {_figure(rate)}, where 50 % is due"
    order = ""
    if first is not None:
        bias = ": the order itself decides, which only showing both orders takes out" if _leaves_even(first) else ""
        order = f"; of two equal answers the judge takes the one shown first in {first.win_rate:.0f} %{bias}"
    if low <= EVEN <= high:
        return False, f"{outcome}: no bias that can be distinguished from none{order}."
    nearest, furthest = sorted((abs(low - EVEN), abs(high - EVEN)))
    return True, (
        f"{outcome}: the judge has a position bias that the order of the answers does not balance, so win rates here "
        f"are off, by {nearest:.0f} to {furthest:.0f} points if the other prompts are like these{order}."
    )


def _leaves_even(rate: WinRate) -> bool:
    return not rate.ci95[0] <= EVEN <= rate.ci95[1]


def _worthless_row(name: str, preferences: Sequence[float | None], scale: Scale, threshold: float) -> CanaryRow:
    rate = win_rate(preferences)
    alarm, sentence = _worthless(WORTHLESS.get(name, f"the worthless answer {name!r}"), rate, scale, threshold)
    return CanaryRow(
        name, 0.0, rate.n_total, rate.n_missing, finite(rate.win_rate), _bounds(rate), alarm, sentence
    )  # fmt: skip


def _worthless(answer: str, rate: WinRate, scale: Scale, threshold: float) -> tuple[bool, str]:
    capital = answer[0].upper() + answer[1:]
    if not rate.n_total:
        return False, f"{capital} got no verdict, so nothing can be said about it."
    gets = "wins" if scale == "win rate" else "gets, of the scale of marks,"
    outcome = f"{capital} {gets} {_figure(rate)}"
    if rate.ci95[0] > threshold:
        return True, (
            f"{outcome}, surely more than the {threshold:.0f} % that a sound judge may give it: this judge can be "
            "gamed, and its numbers say little about quality."
        )
    if scale == "marks" and round(rate.win_rate) > EVEN:  # a mark is no toss of a coin
        return True, f"{outcome}, more than half: the judge can be gamed, and its numbers say little about quality."
    if scale == "win rate" and rate.n_wins > rate.n_losses:
        count = f"ahead on {rate.n_wins} and behind on {rate.n_losses}"
        if sign_test(rate.n_wins, rate.n_losses) >= CHANCE:
            return False, (
                f"{outcome}: {count}, no more often than chance explains, so no alarm. More canaries (judge.canaries) "
                "would tell."
            )
        return True, (  # whatever the threshold: an answer that must lose wins
            f"{outcome}: {count}, more often than chance explains. The judge can be gamed, or what it is compared with "
            "is no better than a worthless answer; either way these numbers say little about quality."
        )
    return False, f"{outcome}: not surely more than {threshold:.0f} %, so no alarm."


def _figure(rate: WinRate) -> str:
    low, high = rate.ci95
    missing = f", {rate.n_missing} without a verdict" if rate.n_missing else ""
    return f"{rate.win_rate:.0f} % (95 % CI {low:.0f} to {high:.0f}, {rate.n_total} prompts{missing})"
