"""The whole page: what the run was, what came of it, how to repeat it. No number is made here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trimtab.reporting import milestones, page_answers, page_judged, page_run, page_saved, words
from trimtab.version import __version__

_SECTIONS = {
    "wins": "Win rates", "marks": "Marks", "families": "By family", "judge": "Judge", "lengths": "Lengths",
    "training": "Training", "saved": "Compute saved", "heldout": "Held-out", "milestones": "Milestones",
    "samples": "Samples",
    "data": "Data", "repeat": "Reproduce",
    "gaps": "Not measured", "words": "Glossary",
}  # fmt: skip
_ALWAYS = frozenset({"training", "data", "repeat", "words"})


def page(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Everything the templates print, from the tree of `report.json`."""
    benchmark = numbers["benchmark"]
    laid: dict[str, Any] = {
        "title": title(numbers),
        "subject": subject(numbers),
        "headline": numbers["headline"],
        "regime": [*numbers["regime"], *numbers["symptoms"]],
        "wins": page_answers.wins(benchmark),
        "families": page_answers.families(benchmark),
        "marks": page_judged.marks(benchmark),
        "judge": page_judged.who(benchmark),
        "bins": page_judged.bins(benchmark),
        "lengths": page_answers.lengths(benchmark),
        "training": page_run.training(numbers["training"], numbers["objective"]),
        "saved": page_saved.saved(numbers["compute_saved"], numbers["training"]),
        "heldout": page_run.heldout(numbers["heldout"]),
        "milestones": milestones.panel(numbers["milestones"]),
        "samples": page_answers.samples(numbers["samples"]),
        "data": page_run.data(numbers["audit"]),
        "repeat": numbers["reproduce"],
        "config": page_run.config_rows(numbers["config"]),
        "objective": page_run.facts(numbers["objective"]),
        "versions": page_run.facts(numbers["versions"] or {}),
        "plan": page_run.facts(numbers["plan"] or {}),
        "gaps": numbers["not_measured"],
        "glossary": words.GLOSSARY,
        "trimtab": __version__,
    }
    laid["sections"] = [(anchor, name) for anchor, name in _SECTIONS.items() if anchor in _ALWAYS or laid.get(anchor)]
    return laid


def title(numbers: Mapping[str, Any]) -> str:
    """`<model> aligned with <objective>`."""
    return f"{numbers['config']['model']['name']} aligned with {numbers['config']['objective']['name']}"


def subject(numbers: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The chips under the title."""
    config = numbers["config"]
    parameters = ", ".join(
        f"{name} {value:g}" for name, value in numbers["objective"]["parameters"].items() if value is not None
    )
    seeds = ", ".join(str(seed) for seed in numbers["seeds"])
    return [
        ("objective", f"{config['objective']['name']} ({parameters})" if parameters else config["objective"]["name"]),
        ("data", config["data"]["source"]),
        ("benchmark", config["benchmark"]["name"]),
        ("judge", config["judge"]["name"]),
        ("adapter", config["adapter"]["kind"]),
        ("seeds" if len(numbers["seeds"]) > 1 else "seed", seeds),
    ]
