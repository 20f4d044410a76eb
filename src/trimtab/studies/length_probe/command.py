"""Do pairs whose chosen response is longer leave training first? Post hoc, from what a run wrote down of every visit:
`probe.json`, `probe.html`.

Several runs are set beside each other: a hinge beside a sigmoid, one margin beside another.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trimtab import store
from trimtab.errors import ConfigError
from trimtab.progress import Reporter
from trimtab.reporting import render
from trimtab.reporting.json_form import json_form
from trimtab.reporting.sections import Sentence
from trimtab.reporting.text import columns, estimate_text, number
from trimtab.studies.length_probe.answer_lengths import answer_numbers
from trimtab.studies.length_probe.numbers import RunNumbers, Side, bins_of, measure
from trimtab.studies.length_probe.page import page
from trimtab.studies.length_probe.read import TrainedRun, read
from trimtab.studies.length_probe.run_difference import RunDifference, run_difference
from trimtab.studies.length_probe.words import headline
from trimtab.version import __version__

FORMAT = 1  # raise when probe.json's keys change


@dataclass(frozen=True, slots=True)
class Probe:
    """What `probe.json` holds: each run, and how the others differ from the first."""

    runs: tuple[RunNumbers, ...]
    differences: tuple[RunDifference, ...]

    @property
    def command(self) -> str:
        return "trimtab probe " + " ".join(shlex.quote(numbers.run.folder) for numbers in self.runs)

    @property
    def headline(self) -> list[Sentence]:
        return headline(self.runs, self.differences)

    def to_json(self) -> dict[str, object]:
        return {
            "format": FORMAT,
            "kind": "probe",
            "trimtab": __version__,
            "command": self.command,
            "runs": json_form(self.runs),
            "compared": json_form(self.differences),
            "headline": json_form(self.headline),
        }


def main(run_folders: Sequence[str], *, reporter: Reporter) -> Probe:
    """Measure, and write both files into the first run folder."""
    if not run_folders:
        raise ConfigError(
            "no run is named", remedy="name the folder that `trimtab run` printed: trimtab probe runs/mine"
        )
    if len({Path(name).resolve() for name in run_folders}) < len(run_folders):
        raise ConfigError("the same run is named twice", remedy="name different runs, or one alone")
    runs = [read(name) for name in run_folders]  # what is missing is said before anything is measured
    bins = bins_of(runs[0].length_difference_P)
    numbers = []
    with reporter.track("probing", total=len(runs), unit="runs") as advance:
        for run, label in zip(runs, _labels(runs), strict=True):
            numbers.append(measure(run, bins, label=label, answers=answer_numbers(run)))
            advance(1)
    probe = Probe(tuple(numbers), tuple(run_difference(numbers[0], second, bins) for second in numbers[1:]))
    root = Path(run_folders[0])
    html = render.page_html(page(probe.runs, probe.differences, sentences=probe.headline, command=probe.command))
    with store.lock(root):
        store.write_json(root / "probe.json", probe.to_json())
        store.write_text(root / "probe.html", html)
    reporter.say(f"probe: {root / 'probe.html'}")
    return probe


def _labels(runs: Sequence[TrainedRun]) -> list[str]:
    """Runs by their objective; by their folder too where two have the same."""
    labels = []
    for run in runs:
        parameters = [f"{key} {value:g}" for key, value in run.objective.parameters().items() if value is not None]
        labels.append(f"{run.objective.name} ({', '.join(parameters)})" if parameters else run.objective.name)
    if len(set(labels)) == len(labels):
        return labels
    places = [Path(run.folder).name for run in runs]
    if len(set(places)) < len(places):
        places = [run.folder for run in runs]
    return [f"{label}, {place}" for label, place in zip(labels, places, strict=True)]


def lines(probe: Probe) -> list[str]:
    """For a terminal: the verdicts, and one table a run."""
    text = [sentence.text.replace("**", "") for sentence in probe.headline]
    for run in probe.runs:
        text += ["", f"{run.label}: active, % at a visit, by length difference in tokens (chosen less rejected)"]
        text += columns(_rows(run), align=">")
    return [*text, "", f"plots and every number: {probe.runs[0].run.folder}/probe.html"]


def _rows(run: RunNumbers) -> list[list[str]]:
    last = run.run.n_visits - 1
    visits = sorted({0, last // 2, last})  # the page has them all
    sides: tuple[Side, ...] = ("chosen", "rejected")
    heads = [f"{side} {visit + 1}" for side in sides for visit in visits]
    rows = [["longer by", "pairs", *heads, "mean visits: chosen", "rejected"]]
    for at, entry in enumerate(run.bins):
        shares = [
            number(run.sides[side].active[at][visit].scaled(100).value, digits=0) for side in sides for visit in visits
        ]
        times = [estimate_text(run.sides[side].visits[at].mean, digits=2) for side in sides]
        rows.append([entry.label, number(entry.n), *shares, *times])
    return rows
