"""What feeds a search to the sweep's loop: points of the ledger as trials, new ones as runs, milestones as limits."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

from trimtab import store
from trimtab.errors import ConfigError
from trimtab.runtime.folder import Folder
from trimtab.studies.sweep import grid
from trimtab.studies.sweep.plan_runs import planned_runs
from trimtab.studies.sweep.run_table import Run, RunTable
from trimtab.studies.sweep.search import Search, Texts, Trial, objective
from trimtab.studies.sweep.sweep_file import text_of

LEAST_RUNS = 5  # that have been at a milestone before another is measured by them

Accuracies = Mapping[int, float]  # share of the held-out pairs, by step of a milestone


@dataclass(slots=True)
class SearchSource:
    """`sweep` grows by a point with every proposal. `tree`: the configuration without the axes' keys."""

    search: Search
    sweep: grid.Sweep
    tree: grid.ConfigTree
    table: RunTable
    _texts: dict[str, Texts] = field(default_factory=dict)  # by point
    _accuracies: dict[str, Accuracies] = field(default_factory=dict)  # by run

    def restore(self) -> None:
        """The points that the ledger has, as far as they are of these axes, are the first trials."""
        keys = [axis.key for axis in self.sweep.axes]
        names = self._value_names()
        for run in self.table.runs():
            if run.point in self._texts or set(run.settings) != set(keys) or len(self._texts) >= self.search.n_trials:
                continue
            texts = {
                key: names.get((key, json.dumps(value))) or text_of(value, key) for key, value in run.settings.items()
            }
            point = grid.add_point(self.sweep, self.tree, texts)
            config = point.config.model_copy(update={"out": f"{self.sweep.out}/points/{run.point}"})
            self._add(replace(point, name=run.point, config=config), texts)

    def next_runs(self) -> Sequence[Run]:
        """The seeds of the next point, written into the ledger; empty after the last trial.

        Raises ConfigError where a run came to nothing that could be searched for.
        """
        runs = self.table.runs()
        if blind := next((run for run in runs if run.state == "done" and objective(run.numbers) is None), None):
            raise ConfigError(
                f"{blind.name} has neither a win rate nor held-out pairs: there is nothing to search for",
                remedy="add a benchmark with a judge, or hold pairs out with --data.holdout 0.1",
            )
        trials = [
            Trial.of(self._texts[point.name], [run for run in runs if run.point == point.name])
            for point in self.sweep.points
        ]
        texts = self.search.propose(trials)
        if texts is None:
            return ()
        point = grid.add_point(self.sweep, self.tree, texts)
        self._add(point, texts)
        new_runs = planned_runs(replace(self.sweep, points=(point,)))
        self.table.add(new_runs)
        return new_runs

    def limits(self) -> Mapping[str, float]:
        """The median of the held-out accuracy at each milestone that enough runs have passed and not ended with."""
        by_step: dict[int, list[float]] = {}
        for run in self.table.runs():
            if run.state == "done":
                for step, accuracy in self._accuracies_of(run).items():
                    by_step.setdefault(step, []).append(accuracy)
        return {str(step): median(values) for step, values in by_step.items() if len(values) >= LEAST_RUNS}

    def _add(self, point: grid.Point, texts: Texts) -> None:
        self.sweep = replace(self.sweep, points=(*self.sweep.points, point))
        self._texts[point.name] = texts

    def _value_names(self) -> Mapping[tuple[str, str], str]:
        """The text of each listed value by what it resolves to."""
        return {
            (axis.key, json.dumps(point.settings[axis.key])): text
            for axis in self.sweep.axes
            if not grid.is_range(axis)
            for text in axis.values
            for point in [grid.add_point(self.sweep, self.tree, {**grid.first_texts(self.sweep.axes), axis.key: text})]
        }

    def _accuracies_of(self, run: Run) -> Accuracies:
        if run.name not in self._accuracies:
            file = Folder(Path(run.folder)).selection
            rows = store.read_json(file)["milestones"] if file.is_file() else []
            self._accuracies[run.name] = {
                row["step"]: row["accuracy"]["value"]
                for row in rows[:-1]
                if row["accuracy"] is not None and row["accuracy"]["value"] is not None
            }
        return self._accuracies[run.name]
