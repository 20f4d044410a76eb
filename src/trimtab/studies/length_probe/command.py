"""Do pairs whose chosen response is longer leave training first? Post hoc, from what a run wrote down of every visit:
`probe.json`, `probe.html`.

Several runs are set beside each other: a hinge beside a sigmoid, one margin beside another.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trimtab import store
from trimtab.errors import ConfigError
from trimtab.progress import Reporter
from trimtab.reporting import render
from trimtab.studies.length_probe import page as probe_page
from trimtab.studies.length_probe import words as probe_words
from trimtab.studies.length_probe.answers import answer_numbers
from trimtab.studies.length_probe.comparison import compared
from trimtab.studies.length_probe.numbers import Measured, bins_of, measure
from trimtab.studies.length_probe.read import Probed, read
from trimtab.version import __version__

FORMAT = 1


def main(run_folders: Sequence[str], *, reporter: Reporter) -> dict[str, Any]:
    """Measure, write both files into the first run folder, and return what `probe.json` holds."""
    if not run_folders:
        raise ConfigError(
            "no run is named", remedy="name the folder that `trimtab run` printed: trimtab probe runs/mine"
        )
    if len({Path(name).resolve() for name in run_folders}) < len(run_folders):
        raise ConfigError("the same run is named twice", remedy="name different runs, or one alone")
    probed = [read(name) for name in run_folders]  # what is missing is said before anything is measured
    bins = bins_of(probed[0])
    measured: list[Measured] = []
    with reporter.track("probing", total=len(probed), unit="runs") as advance:
        for one in probed:
            measured.append(measure(one, bins))
            advance(1)
    numbers = _numbers(probed, measured, compare=[compared(measured[0], other, bins) for other in measured[1:]])
    root = Path(run_folders[0])
    with store.locked(root):
        store.write_json(root / "probe.json", numbers)
        store.write_text(root / "probe.html", render.html(probe_page.page(numbers), template="probe.html.j2"))
    reporter.say(f"probe: {root / 'probe.html'}")
    return numbers


def lines(told: dict[str, Any]) -> list[str]:
    """The measurement for a terminal."""
    return probe_words.lines(told)


def _numbers(
    probed: Sequence[Probed], measured: Sequence[Measured], *, compare: list[dict[str, Any]]
) -> dict[str, Any]:
    runs = [
        one.numbers | {"label": label, "answers": answer_numbers(one.probed)}
        for one, label in zip(measured, _labels(probed), strict=True)
    ]
    numbers: dict[str, Any] = {
        "format": FORMAT,
        "kind": "probe",
        "trimtab": __version__,
        "command": "trimtab probe " + " ".join(shlex.quote(one.folder) for one in probed),
        "runs": runs,
        "compared": compare,
    }
    return numbers | {"headline": probe_words.headline(numbers)}


def _labels(probed: Sequence[Probed]) -> list[str]:
    """Runs by their objective; by their folder where two have the same."""
    names = []
    for one in probed:
        told = ", ".join(f"{key} {value:g}" for key, value in one.objective.parameters().items() if value is not None)
        names.append(f"{one.objective.name} ({told})" if told else one.objective.name)
    if len(set(names)) == len(names):
        return names
    places = [Path(one.folder).name for one in probed]
    if len(set(places)) < len(places):
        places = [one.folder for one in probed]
    return [f"{name}, {place}" for name, place in zip(names, places, strict=True)]
