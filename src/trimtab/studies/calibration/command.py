"""Calibration before and after alignment, on the pairs that a run held out: `calibration.json`, `calibration.html`.

Three questions. Does the reward gap mean what it says: is σ(gap) the share of pairs that it gets right? Is the model as
sure of the next token as it is right? And how far did it go from where it started?
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trimtab import store
from trimtab.progress import Reporter
from trimtab.reporting import render
from trimtab.reporting.text import columns, number
from trimtab.studies.calibration import read
from trimtab.studies.calibration.numbers import BY_CONSTRUCTION, CalibrationNumbers, calibration_numbers
from trimtab.studies.calibration.page import page
from trimtab.studies.calibration.words import drift_rows, gap_rows, headline, token_rows
from trimtab.version import __version__

FORMAT = 1  # raise when calibration.json's keys change
_LABEL_WIDTH = 42  # one for all three tables, so that their columns stand below each other


@dataclass(frozen=True, slots=True)
class Measurement:
    """What `calibration.json` holds."""

    numbers: CalibrationNumbers

    def to_json(self) -> dict[str, object]:
        sentences = [sentence.to_json() for sentence in headline(self.numbers)]
        return {"format": FORMAT, "trimtab": __version__} | self.numbers.to_json() | {"headline": sentences}


def main(run_folder: str, *, reporter: Reporter, trust_remote_code: bool = False) -> Measurement:
    """Measure, and write both files into the run folder."""
    run = read.find(run_folder, trust_remote_code=trust_remote_code)  # what is missing is said before a model is loaded
    root = Path(run.setup.config.out)
    with store.lock(root):
        readings = [read.read(run, setup, reporter=reporter) for setup in run.seed_setups]
        measurement = Measurement(calibration_numbers(run, readings))
        store.write_json(root / "calibration.json", measurement.to_json())
        store.write_text(root / "calibration.html", render.page_html(page(measurement.numbers)))
    reporter.say(f"calibration: {root / 'calibration.html'}")
    return measurement


def lines(measurement: Measurement) -> list[str]:
    """The measurement for a terminal."""
    numbers = measurement.numbers
    before, after = numbers.measures.gaps_before, numbers.measures.gaps_after
    n_tokens = number(numbers.run.n_chosen_tokens)
    return [
        *(sentence.text.replace("**", "") for sentence in headline(numbers)),
        "",
        f"σ(reward gap) on held-out pairs: {'before, after' if before else 'after'}",
        *([] if before else [f"  {BY_CONSTRUCTION}"]),
        *_table(gap_rows([before, after] if before else [after])),
        "",
        f"next token of chosen responses, {n_tokens} tokens: before, after, change",
        *_table(token_rows(numbers.measures)),
        "",
        "drift from the starting point, nats a token",
        *_table(drift_rows(numbers.measures.drift)),
    ]


def _table(rows: list[list[str]]) -> list[str]:
    return columns([[f"{label:<{_LABEL_WIDTH}}", *cells] for label, *cells in rows])
