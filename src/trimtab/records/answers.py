"""What a model answered, and what a judge said of two answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    """One model's answer to one benchmark prompt. `output` is text; `n_tokens` counts what was sampled.

    The JSON form is AlpacaEval's `model_outputs` row with three keys more.
    """

    prompt_id: str
    instruction: str
    output: str
    generator: str
    dataset: str = ""
    n_tokens: int = 0
    finished: bool = True

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Answer:
        return cls(
            prompt_id=str(row.get("prompt_id", row["instruction"])),
            instruction=row["instruction"],
            output=row["output"],
            generator=row["generator"],
            dataset=row.get("dataset", ""),
            n_tokens=row.get("n_tokens", 0),
            finished=row.get("finished", True),
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """One judged comparison, baseline (output_1) against model (output_2).

    `preference` follows AlpacaEval: 1 = the baseline wins, 2 = the model wins, 1.5 = tie, between = a judge's
    probability; None = the judge gave no verdict, which is counted as missing and never as a score.
    """

    prompt_id: str
    instruction: str
    output_1: str
    output_2: str
    generator_1: str
    generator_2: str
    annotator: str
    preference: float | None
    dataset: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Verdict:
        return cls(
            prompt_id=str(row.get("prompt_id", row["instruction"])),
            instruction=row["instruction"],
            output_1=row["output_1"],
            output_2=row["output_2"],
            generator_1=row["generator_1"],
            generator_2=row["generator_2"],
            annotator=str(row.get("annotator", "")),
            preference=row["preference"],
            dataset=row.get("dataset", ""),
        )
