"""From measurements to words: every claim of the page is picked here by the number, none is typed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from experiments.measurement import Measurement
from trimtab.records import Direction


def direction(measurement: Measurement, *, even: float = 0.0) -> Direction:
    """On which side of `even` the whole 95 % interval lies."""
    return measurement.estimate.direction(even)


def number(value: float | None, digits: int = 1, *, with_sign: bool = False) -> str:
    """With a minus sign that is one; "–" for a value that is not there."""
    if value is None:
        return "–"
    text = f"{value:+.{digits}f}" if with_sign else f"{value:.{digits}f}"
    if float(text) == 0:
        text = f"{0:.{digits}f}"
    return text.replace("-", "−")


def text_of(measurement: Measurement, digits: int = 1, *, with_sign: bool = False) -> str:
    """`+3.2 [1.0, 5.4]`, the interval left out where there is none."""
    text = number(measurement.value, digits, with_sign=with_sign)
    if measurement.ci95 is None:
        return text
    low, high = (number(end, digits, with_sign=with_sign) for end in measurement.ci95)
    return f"{text} [{low}, {high}]"


def claim(
    measurement: Measurement,
    *,
    about: str,
    up: str,
    down: str,
    digits: int = 1,
    even: float = 0.0,
    unit: str | None = None,
) -> str:
    """`up` or `down` with the number where its interval leaves `even` out; else what could have been told apart.

    `up` and `down` are whole statements ("answers get longer"); `about` names the number where there is no statement
    ("length of answers"). The sentence comes without its full stop.
    """
    name = measurement.estimate.unit if unit is None else unit
    text = f"{text_of(measurement, digits, with_sign=even == 0.0)} {name}".rstrip()
    match direction(measurement, even=even):
        case "above":
            return f"{up}: {text}"
        case "below":
            return f"{down}: {text}"
        case "not distinguishable":
            return f"{about}: not distinguishable, {text}{power(measurement, digits, unit=unit)}"
        case "unknown":
            return f"{about}: no interval, so no claim: {text}"


def power(measurement: Measurement, digits: int = 1, *, unit: str | None = None) -> str:
    """What could have been told from zero, as the second half of a sentence."""
    if not measurement.detectable:  # of differences that are all 0 there is no spread to tell it from
        return ""
    name = measurement.estimate.unit if unit is None else unit
    size = f"{number(measurement.detectable, digits)} {name}".rstrip()
    return f" (80 % power for {size})"


def group(verdicts: Mapping[str, str], order: Iterable[str]) -> list[str]:
    """A sentence a verdict, `first: a; b.`, from a verdict by label; in the order of the verdicts given."""
    labels = {verdict: [label for label, own in verdicts.items() if own == verdict] for verdict in order}
    return [f"{verdict}: {'; '.join(names)}." for verdict, names in labels.items() if names]


def count(verdicts: Mapping[str, str], order: Iterable[str]) -> str:
    """`first in 2, last in 1 of 3 settings`, from a verdict by label; in the order of the verdicts given."""
    values = list(verdicts.values())
    counts = [f"{verdict} in {values.count(verdict)}" for verdict in order if verdict in values]
    return f"{', '.join(counts)} of {len(values)} settings"


def method(objective: Mapping[str, Any]) -> str:
    """An objective of a run's configuration with the values that set its dead zone: `apo_hinge_zero m = 1`."""
    signs = {"margin": "m", "delta": "δ"}
    values = [f"{sign} = {objective[key]:g}" for key, sign in signs.items() if objective.get(key) is not None]
    return f"{objective['name']} {', '.join(values)}".strip()


def join_words(words: list[str]) -> str:
    """`a, b and c`."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"
