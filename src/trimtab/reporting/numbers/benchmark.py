"""Everything that was judged and counted on the benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from trimtab.analysis import canaries
from trimtab.reporting.json_form import fields_form
from trimtab.reporting.judges import JudgeCanary
from trimtab.reporting.numbers.answers import (
    FamilyNumbers,
    LengthNumbers,
    ScoreNumbers,
    family_numbers,
    length_numbers,
    score_numbers,
)
from trimtab.reporting.numbers.common_prompts import CommonPrompts
from trimtab.reporting.numbers.judges import JudgeNumbers, LengthBin, judge_numbers, length_bins
from trimtab.reporting.numbers.marks import MarkNumbers, mark_numbers
from trimtab.reporting.read import Run
from trimtab.runtime.judges import judge_record
from trimtab.runtime.judges.judge_record import JudgeRecord


@dataclass(frozen=True, slots=True)
class Baseline:
    """What win rates are against; published by the benchmark, or the unaligned model."""

    name: str
    published: bool


@dataclass(frozen=True, slots=True)
class BenchmarkNumbers:
    """`before` says whose the answers called before are; `identity` is the record of who judged.

    `judges` have the truth first; `constant_answers` are warnings that a side answers most prompts alike. Marks need
    no other side: where only the aligned model answered, `lengths` is None.
    """

    name: str | None
    n_prompts: int
    baseline: Baseline | None
    before: Literal["before", "baseline"]
    identity: JudgeRecord | None
    judges: tuple[JudgeNumbers, ...]
    constant_answers: tuple[str, ...]
    canaries: tuple[JudgeCanary, ...]
    length_bins: tuple[LengthBin, ...]
    marks: MarkNumbers | None
    lengths: LengthNumbers | None
    scores: ScoreNumbers | None
    families: tuple[FamilyNumbers, ...]

    def to_json(self) -> dict[str, object]:
        tree = fields_form(self)
        record = self.identity
        return tree if record is None else tree | {"identity": record.to_json() | {"refused": record.refused}}

    @property
    def published_baseline(self) -> str | None:
        """The name of the published baseline; None where answers are compared with the unaligned model's."""
        return self.baseline.name if self.baseline is not None and self.baseline.published else None


def benchmark_numbers(runs: Sequence[Run]) -> BenchmarkNumbers | None:
    """None when there are neither answers of both sides nor marks."""
    first = runs[0]
    common = CommonPrompts.of(runs)
    record = judge_record.pooled([run.judge for run in runs if run.judge is not None])
    marks = mark_numbers(runs, record)
    if not common.prompts and marks is None:
        return None
    judges = common.judges
    return BenchmarkNumbers(
        name=first.benchmark,
        n_prompts=len(common.prompts) or len(first.after),
        baseline=_baseline(first),
        before="before" if first.unaligned else "baseline",
        identity=record,
        judges=tuple(judge_numbers(name, common, record) for name in judges),
        constant_answers=_constant_answers(runs),
        canaries=next((run.canaries for run in runs if run.canaries), ()),
        length_bins=tuple(length_bins(common, judges)) if judges else (),
        marks=marks,
        lengths=length_numbers(common) if common.prompts else None,
        scores=score_numbers(runs),
        families=tuple(family_numbers(common, judges)),
    )


def _baseline(run: Run) -> Baseline | None:
    first = next(iter(run.baseline.values()), None)
    return None if first is None else Baseline(first.generator, run.published)


def _constant_answers(runs: Sequence[Run]) -> tuple[str, ...]:
    """A warning for every seed's rows in which one side answers most prompts alike."""
    rows = [next(iter(run.verdicts.values()), ()) for run in runs]
    answers = [canaries.constant_answer(verdicts) for verdicts in rows]
    return tuple(dict.fromkeys(answer.sentence for answer in answers if answer is not None))
