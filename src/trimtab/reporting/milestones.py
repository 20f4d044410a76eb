"""The milestones' part of the report: numbers from `selection.json`, the sentence, and the panel of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.analysis.milestone_plot import milestone_plot
from trimtab.reporting.inputs import Run
from trimtab.reporting.sentences import Sentence, sentence
from trimtab.reporting.text import number, shown, significant

_COLUMNS = (
    ("accuracy", "accuracy"),
    ("loss", "loss"),
    ("log_loss", "log-loss"),
    ("drift", "drift"),
    ("log_ratio_chosen", "log-ratio, chosen"),
    ("log_ratio_rejected", "log-ratio, rejected"),
)


def milestone_numbers(runs: Sequence[Run]) -> dict[str, Any] | None:
    """`selection.json` of every seed without its pairs' names; None where no run has one."""
    told = [
        {"seed": run.seed} | {key: value for key, value in run.selection.items() if key != "ids"}
        for run in runs
        if run.selection is not None
    ]
    return {"seeds": told} if told else None


def sentences(told: Mapping[str, Any] | None) -> list[Sentence]:
    """Which weights these are, where they are not simply the last step's."""
    if told is None:
        return []
    several = len(told["seeds"]) > 1
    return (
        [
            sentence(
                ("Seed " + str(entry["seed"]) + ": the" if several else "The")
                + f" model is that of **step {number(entry['picked'])} of {number(entry['last'])}**: {entry['why']}.",
                "plain",
            )
            for entry in told["seeds"]
            if entry["picked"] != entry["last"]
        ]
        + [
            sentence(
                f"Milestones of an earlier life were gone or damaged and could not be picked: {_steps(entry['lost'])}.",
                "warn",
            )
            for entry in told["seeds"]
            if entry["lost"]
        ]
        + [
            sentence(
                (f"Seed {entry['seed']}: h" if several else "H") + f"{entry['warning'][1:]}.",
                "warn",
            )
            for entry in told["seeds"]
            if entry.get("warning")  # an older version's have none
        ]
    )


def panel(told: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Quality against drift, the rule, and a table a seed."""
    if told is None or not any(entry["milestones"] for entry in told["seeds"]):
        return None
    entries = [entry for entry in told["seeds"] if entry["milestones"]]
    rows = [entry["milestones"] for entry in entries]
    several = len(told["seeds"]) > 1
    first = entries[0]
    return {
        "lead": f"Rule: {first['rule']}. Held-out rewards say how well the labels were learned, not how good the "
        f"answers are. Drift: {first['drift_note']}.",
        "picks": [
            (f"Seed {entry['seed']}: step " if several else "Step ")
            + f"{number(entry['picked'])} of {number(entry['last'])}, because {entry['why']}."
            for entry in entries
        ],
        "plots": [
            {
                "title": title,
                "note": "ring: picked; numbers: steps; bars: 95 % over pairs" if not several else "ring: picked",
                "svg": milestone_plot(rows, measure=measure, label=label, scale=scale),
            }
            for title, measure, label, scale in (
                ("Accuracy against drift", "accuracy", "held-out reward accuracy, %", 100.0),
                ("Loss against drift", "loss", "held-out loss, nats", 1.0),
            )
        ],
        "tables": [
            {"title": f"Seed {entry['seed']}" if several else "Milestones", "table": _table(entry)} for entry in entries
        ],
    }


def _table(entry: Mapping[str, Any]) -> dict[str, Any]:
    known = [(key, name) for key, name in _COLUMNS if entry["milestones"][0][key] is not None]
    rows = [
        [
            f"{number(one['step'])}{' (picked)' if one['picked'] else ''}",
            significant(one["epoch"]),
            *(shown(one[key], digits=3) for key, _ in known),
            "" if one["picked"] else shown(one["against_picked"]["accuracy"], digits=3),
            "" if one["picked"] else shown(one["against_picked"]["loss"], digits=3),
            number(one["n"]),
        ]
        for one in entry["milestones"]
    ]
    names = [name for _, name in known]
    return {
        "head": ["step", "epoch", *names, "accuracy less the picked one's", "loss less the picked one's", "pairs"],
        "rows": rows,
    }


def _steps(steps: Sequence[int]) -> str:
    return ", ".join(number(step) for step in steps)
