"""The runs of a sweep, from its points and seeds."""

from __future__ import annotations

from trimtab import config
from trimtab.studies.sweep import grid
from trimtab.studies.sweep.run_table import Run


def planned_runs(sweep: grid.Sweep) -> list[Run]:
    """A run for each seed of each point, in the folder that a run with several seeds would give it."""
    runs = []
    for point in sweep.points:
        for seed in sweep.seeds:
            out = f"{point.config.out}/seed-{seed}"
            single = point.config.model_copy(update={"seed": seed, "seeds": 1, "out": out})
            name = f"{point.name}/seed-{seed}"
            runs.append(Run(name, point.name, seed, out, point.settings, config.to_json(single), point.cache_key))
    return runs
