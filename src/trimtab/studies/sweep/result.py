"""From the runs of a sweep to `sweep.json`: every figure of every point with its n and interval, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trimtab import store
from trimtab.analysis import sweep as sweeping
from trimtab.commands import run
from trimtab.config import Config, resolve, to_json
from trimtab.progress import SilentReporter
from trimtab.reporting import estimates, read
from trimtab.reporting.json_form import fields_form
from trimtab.reporting.numbers.report import report_of
from trimtab.runtime.folder import Folder
from trimtab.runtime.run_setup import set_up
from trimtab.stages import report
from trimtab.studies.sweep import pooled
from trimtab.studies.sweep.grid import Point, Sweep
from trimtab.studies.sweep.ledger import Row
from trimtab.studies.sweep.maps import maps, values_of
from trimtab.version import __version__

FORMAT = 2
OVER_SEEDS = "t interval over seeds"
ONE_SEED = "one seed: no interval"
SHARED_WORK = ("sampling answers to be labelled", "reference", "answers of the unaligned model")
NOTES = (
    "Active: share of pairs (with either side) or of responses of one side that have a gradient, mean over the last "
    "tenth of the steps.",
    "Steps to 90 %: the first step by which the training reward accuracy, averaged over a sliding tenth of the run, "
    "reached 90 % of where it ended. Accuracy starts near one half, so a run that ends below 56 % is there at once.",
    "Starved: less than 5 % of the responses active before half of the steps. Linear: more than 95 % to the end; there "
    "objectives and margins give nearly the same model.",
    "A seed that --stop-starved ended has no answers: win rates and lengths of its point are over the other seeds.",
    "The highest of many figures is above its own truth on average: repeat it with seeds of its own.",
)


def run_numbers(folder: Path) -> dict[str, Any]:
    """The figures of one run; where it was stopped for starving, those that its training left."""
    tree = _report_of(folder) if (folder / "report.json").is_file() else None
    return numbers_of(tree, [_metrics_of(folder)], n_starved=tree is None)


def _report_of(folder: Path) -> dict[str, Any]:
    own = Folder(folder)
    return dict(store.read_json(own.intact(own.report("json"))))


def _metrics_of(folder: Path) -> list[dict[str, Any]]:
    own = Folder(folder)
    return store.read_jsonl(own.intact(own.metrics))


def numbers_of(
    tree: Mapping[str, Any] | None, metrics: Sequence[Sequence[Mapping[str, Any]]], *, n_starved: int
) -> dict[str, Any]:
    """The figures of a point: `tree` of its report (None: no seed has one), rows of each seed's `metrics.jsonl`.

    The last `n_starved` of the seeds were stopped for starving: they have no answers, and no step to 90 %.
    """
    whole = metrics[: len(metrics) - n_starved]
    benchmark = tree["benchmark"] if tree else None
    lengths = benchmark["lengths"] if benchmark else None
    trained = tree["training"]["seeds"] if tree and tree["training"] else []
    reached = [sweeping.steps_to_share([row["rewards/accuracies"] for row in rows]) for rows in whole]
    return {
        "win_rates": _win_rates(benchmark["judges"]) if benchmark else [],
        "mark": _mark(benchmark["marks"]) if benchmark and benchmark["marks"] else None,
        "true_score": benchmark["scores"]["after"] if benchmark and benchmark["scores"] else None,
        "length": {"unit": lengths["unit"], "mean": lengths[lengths["unit"]]["after"]} if lengths else None,
        "heldout_accuracy": tree["heldout"]["accuracy"] if tree and tree["heldout"] else None,
        "active": {side: _over_seeds([_at_end(rows, f"active/{side}") for rows in metrics]) for side in _SIDES},
        "steps_to_90": _over_seeds([*reached, *[None] * n_starved]),
        "regimes": [entry["regime"]["name"] for entry in trained] + ["starved"] * n_starved,
    }


_SIDES = ("pair", "chosen", "rejected")


def _win_rates(judges: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for judge in judges:
        told = {key: judge[key] for key in ("judge", "label", "role")}
        found.append(told | {"kind": "true" if judge["role"] == "truth" else "raw", "win_rate": judge["win_rate"]})
        if judge["length_controlled"]:
            found.append(told | {"kind": "length-controlled", "win_rate": judge["length_controlled"]["win_rate"]})
    return found


def _mark(marks: Mapping[str, Any]) -> dict[str, Any]:
    """MT-Bench's: the aligned model's mean over all questions and turns, of 10."""
    return {**marks["all"]["means"]["aligned"], "judge": marks["judge"]}


def _at_end(rows: Sequence[Mapping[str, Any]], name: str) -> float | None:
    tail = [row[name] for row in rows[-max(1, len(rows) // 10) :]]
    return float(np.mean(tail)) if tail else None


def _over_seeds(figures: Sequence[float | None]) -> estimates.Estimate:
    known = [float(figure) for figure in figures if figure is not None]
    pooled = sweeping.over_seeds(known)
    told = estimates.of_seeds(pooled, method=OVER_SEEDS if len(known) > 1 else ONE_SEED)
    return told | {"n_missing": len(figures) - len(known)}


# --- points ----------------------------------------------------------------------------------------------------------


def point_entry(point: Point, rows: Sequence[Row]) -> dict[str, Any]:
    """A point of `sweep.json`: its values, its figures over the seeds that are done, and its runs."""
    done = [row for row in rows if row.state == "done"]
    starved = [row for row in rows if row.state == "starved"]
    return {
        "name": point.name,
        "values": dict(point.values),
        "settings": dict(point.settings),
        "n_done": len(done),
        "n_starved": len(starved),
        "numbers": _numbers(point, done, starved, whole=len(done) == len(rows)),
        "runs": [
            {
                "seed": row.seed,
                "state": row.state,
                "folder": row.elsewhere or row.folder,
                "elsewhere": row.elsewhere is not None,
                "error": row.error,
                "seconds": row.seconds,
                "computed": row.computed,
            }
            for row in rows
        ],
    }


def _numbers(point: Point, done: Sequence[Row], starved: Sequence[Row], *, whole: bool) -> dict[str, Any] | None:
    if not done and not starved:
        return None
    if len(done) + len(starved) == 1:
        only = (*done, *starved)[0]
        return dict(only.numbers or {})
    if any(row.elsewhere for row in (*done, *starved)):
        return pooled.of_runs([row.numbers or {} for row in (*done, *starved)])
    metrics = [_metrics_of(Path(row.folder)) for row in (*done, *starved)]
    return numbers_of(_tree(point.config, done, whole=whole), metrics, n_starved=len(starved))


def _tree(config: Config, done: Sequence[Row], *, whole: bool) -> dict[str, Any] | None:
    """The report of the seeds that are done: the point's own, pooled, where these are all of them."""
    if not done:
        return None
    if len(done) == 1:
        return _report_of(Path(done[0].folder))
    own = Folder.of(config)
    held = store.read_json(own.config) if own.config.is_file() else None
    if whole and (held is None or not run.differing(held, to_json(config))):  # it may be of fewer seeds
        with run.begun(set_up(config), reporter=SilentReporter()):
            report.main(set_up(config), reporter=SilentReporter())
        return _report_of(own.root)
    singles = [resolve(row.config) for row in done]
    runs = [read.read(single.folder, single) for single in map(set_up, singles)]
    return fields_form(report_of(runs, set_up(config)))


# --- the sweep -------------------------------------------------------------------------------------------------------


def sweep_tree(sweep: Sweep, rows: Sequence[Row], *, command: str, seconds: float) -> dict[str, Any]:
    """The tree of `sweep.json`. `seconds` is what this life of the sweep took."""
    points = [point_entry(point, [row for row in rows if row.point == point.name]) for point in sweep.points]
    return {
        "format": FORMAT,
        "kind": "sweep",
        "trimtab": __version__,
        "folder": sweep.out,
        "command": command,
        "grid": {axis.key: values_of(axis.key, points) for axis in sweep.axes},
        "seeds": list(sweep.seeds),
        "points": points,
        "states": {state: n for state in _STATES if (n := sum(row.state == state for row in rows))},
        "failed": [{"run": row.name, "error": row.error} for row in rows if row.state == "failed"],
        "highest": _highest(points),
        "maps": maps(points, [axis.key for axis in sweep.axes]),
        "cost": cost([row for row in rows if row.elsewhere is None]) | {"seconds_this_time": seconds},
        "elsewhere": sum(row.elsewhere is not None for row in rows),
        "notes": list(NOTES),
        "base": sweep.base,
    }


_STATES = ("done", "starved", "failed", "stopped", "running", "waiting")


def cost(rows: Sequence[Row]) -> dict[str, Any]:
    """Seconds that the runs took, and what they would have taken each alone: with the shared work that another did.

    Only what was measured: a run that was served a piece of work is charged the seconds which that took in the run of
    the same data and model that did it. Starting a process and importing are in neither.
    """
    served = [_served(row, [other for other in rows if other.kin == row.kin]) for row in rows]
    own = sum(row.seconds for row in rows)
    saved = sum(sum(work.values()) for work in served)
    return {
        "seconds": own,
        "seconds_alone": own + saved,
        "share": own / (own + saved) if own + saved > 0 else None,
        "served": {row.name: work for row, work in zip(rows, served, strict=True)},
    }


def _served(row: Row, kin: Sequence[Row]) -> dict[str, float]:
    if row.state != "done":
        return {}
    found: dict[str, float] = {}
    for other in kin:
        for task, seconds in other.computed.items():
            if task.startswith(SHARED_WORK) and task not in row.computed and _needs(row, task):
                found[task] = max(found.get(task, 0.0), seconds)
    return found


def _needs(row: Row, task: str) -> bool:
    return task != "reference" or (Path(row.folder) / "reference.json").is_file()


def _highest(points: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The point with the highest win rate by the first judge (the truth, where it is known), or the highest mark."""
    heads = [_headline(point["numbers"] or {}) for point in points]
    figures = [head["figure"] if head else None for head in heads]
    bounds = [tuple(figure["ci95"]) if figure and figure["ci95"] else None for figure in figures]
    found = sweeping.highest([figure["value"] if figure else None for figure in figures], intervals=bounds)
    if found is None:
        return None
    return {
        "point": points[found.place]["name"],
        **(heads[found.place] or {}),
        "n_overlapping": found.n_overlapping,
        "n_others": found.n_others,
    }


def _headline(numbers: Mapping[str, Any]) -> dict[str, Any] | None:
    if rates := numbers.get("win_rates"):
        return {"what": "win rate", "unit": "%", "judge": rates[0]["label"], "figure": rates[0]["win_rate"]}
    if numbers.get("mark"):
        return {"what": "mean mark", "unit": "of 10", "judge": numbers["mark"]["judge"], "figure": numbers["mark"]}
    return None
