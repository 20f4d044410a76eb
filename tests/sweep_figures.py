"""Figures of runs, made by hand."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.records import Estimate
from trimtab.studies.sweep.maps import PointResult
from trimtab.studies.sweep.numbers import SIDES, AnswerNumbers, JudgeRate, MeanMark, PointNumbers, TrainingNumbers
from trimtab.studies.sweep.result import Cost, SweepResult
from trimtab.studies.sweep.run_table import Run


def bare(value: float | None, unit: str = "") -> Estimate:
    """A number of one seed, which has no interval."""
    return Estimate(value, None, 1, "by hand", unit=unit)


def within(value: float, reach: float, *, n: int = 400, unit: str = "") -> Estimate:
    return Estimate(value, (value - reach, value + reach), n, "by hand", unit=unit)


def numbers(
    *,
    rates: Sequence[JudgeRate] = (),
    length: Estimate | None = None,
    mark: MeanMark | None = None,
    active: float = 0.25,
    steps: float | None = 7.0,
    regimes: Sequence[str | None] = ("selective",),
) -> PointNumbers:
    shares = {side: bare(active) for side in SIDES}
    answers = AnswerNumbers(tuple(rates), mark=mark, length=length)
    return PointNumbers(answers, TrainingNumbers(shares, bare(steps, "steps"), tuple(regimes)))


def truth(value: float, reach: float = 4.0) -> JudgeRate:
    return JudgeRate("oracle", "the oracle", "truth", "true", within(value, reach, unit="%"))


def point(name: str, figures: PointNumbers | None, **values: object) -> PointResult:
    return PointResult(name, values, {}, figures, ())


def hostile_sweep(text: str, error: str) -> SweepResult:
    """One run that failed, with `text` wherever a model, a file or a person could have put it."""
    run = Run(text, text, 0, text, {}, {}, "", state="failed", error=error, seconds=1.0, task_seconds={text: 1.0})
    failed = PointResult(text, {"model.name": text, text: text}, {"model.name": text}, None, (run,))
    keys = ("model.name", text, text)
    return SweepResult(
        text, f"trimtab sweep {text}", keys, (0,), {"model": {}, "data": {"source": text}}, (failed,),
        Cost(1.0, {}, 1.0),
    )  # fmt: skip
