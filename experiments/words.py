"""From figures to words: every claim of the page is picked here by the number, none is typed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from experiments.figures_of import Figure

Direction = Literal["above", "below", "not distinguishable", "unknown"]


def direction(figure: Figure, *, even: float = 0.0) -> Direction:
    """On which side of `even` the whole 95 % interval lies."""
    if figure.value is None or figure.ci95 is None:
        return "unknown"
    low, high = figure.ci95
    if low > even:
        return "above"
    return "below" if high < even else "not distinguishable"


def number(value: float | None, digits: int = 1, *, signed: bool = False) -> str:
    """With a minus sign that is one; "–" for a value that is not there."""
    if value is None:
        return "–"
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    if float(text) == 0:
        text = f"{0:.{digits}f}"
    return text.replace("-", "−")


def shown(figure: Figure, digits: int = 1, *, signed: bool = False) -> str:
    """`+3.2 [1.0, 5.4]`, the interval left out where there is none."""
    text = number(figure.value, digits, signed=signed)
    if figure.ci95 is None:
        return text
    low, high = (number(bound, digits, signed=signed) for bound in figure.ci95)
    return f"{text} [{low}, {high}]"


def claim(
    figure: Figure, *, about: str, up: str, down: str, digits: int = 1, even: float = 0.0, unit: str | None = None
) -> str:
    """`up` or `down` with the figure where its interval leaves `even` out; else what could have been seen.

    `up` and `down` are whole statements ("answers get longer"); `about` names the figure where there is no statement
    ("length of answers"). The sentence comes without its full stop.
    """
    told = f"{shown(figure, digits, signed=even == 0.0)} {figure.unit if unit is None else unit}".rstrip()
    match direction(figure, even=even):
        case "above":
            return f"{up}: {told}"
        case "below":
            return f"{down}: {told}"
        case "not distinguishable":
            return f"{about}: not distinguishable, {told}{power(figure, digits, unit=unit)}"
        case "unknown":
            return f"{about}: no interval, so no claim: {told}"


def power(figure: Figure, digits: int = 1, *, unit: str | None = None) -> str:
    """What could have been seen, as the second half of a sentence."""
    if not figure.detectable:  # of differences that are all 0 there is no spread to tell it from
        return ""
    told = f"{number(figure.detectable, digits)} {figure.unit if unit is None else unit}".rstrip()
    return f" (80 % power for {told})"


def grouped(found: Mapping[str, str], order: Iterable[str]) -> list[str]:
    """A sentence a verdict, `first: a; b.`, from a verdict by label; in the order of the verdicts given."""
    labels = {one: [label for label, told in found.items() if told == one] for one in order}
    return [f"{one}: {'; '.join(those)}." for one, those in labels.items() if those]


def counted(found: Mapping[str, str], order: Iterable[str]) -> str:
    """`first in 2, last in 1 of 3 settings`, from a verdict by label; in the order of the verdicts given."""
    told = list(found.values())
    return f"{', '.join(f'{one} in {told.count(one)}' for one in order if one in told)} of {len(told)} settings"


def method(objective: Mapping[str, Any]) -> str:
    """An objective of a run's configuration with the values that set its dead zone: `apo_hinge_zero m = 1`."""
    signs = {"margin": "m", "delta": "δ"}
    values = [f"{sign} = {objective[key]:g}" for key, sign in signs.items() if objective.get(key) is not None]
    return f"{objective['name']} {', '.join(values)}".strip()


def listed(words: list[str]) -> str:
    """`a, b and c`."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"
