"""The whole page: what the run was, what came of it, how to repeat it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from trimtab.config import DataSection, default_of, keys
from trimtab.reporting.glossary import GLOSSARY
from trimtab.reporting.json_form import fields_form
from trimtab.reporting.numbers.report import Report
from trimtab.reporting.page import answers, check, compute_saved, data, judges, marks, reward, training
from trimtab.reporting.sections import (
    Block,
    Bullets,
    Code,
    Facts,
    Fold,
    Heading,
    Page,
    Section,
    Terms,
    Text,
)
from trimtab.reporting.text import significant
from trimtab.reporting.words.report import ReportWords

NEXT_LEAD = "From this run's own numbers alone; each entry names the one that it rests on."


def report_page(report: Report, words: ReportWords) -> Page:
    benchmark, on_scores = report.benchmark, report.objective.on_scores
    sections = [
        reward.ranking(report.heldout, report.reward),
        judges.win_rates(benchmark),
        marks.marks(benchmark),
        answers.families(benchmark),
        check.check(report.check),
        judges.judge(benchmark),
        answers.lengths(benchmark),
        training.training(report.training, report.objective),
        compute_saved.compute_saved(report.compute_saved, report.training),
        training.heldout(report.heldout),
        training.milestones(report.milestones),
        answers.samples(report.samples),
        data.data(report.audit),
        reward.use(report.config["out"]) if on_scores else None,
        _reproduce(report),
        Section("gaps", "Not measured", "What was not measured", [Bullets(words.not_measured)])
        if words.not_measured
        else None,
        Section("words", "Glossary", "What these numbers mean", [Terms(GLOSSARY)]),
        Section("next", "Next", "What to try next", [Text(NEXT_LEAD, "lead"), Bullets(words.next_steps)]),
    ]
    return Page(
        kind="report",
        title=report.config["model"]["name"]
        + (" as a reward model" if on_scores else f" aligned with {report.config['objective']['name']}"),
        subject=_subject(report),
        summary=words.summary,
        sentences=[*words.headline, *words.regime, *words.symptoms],
        sections=[section for section in sections if section is not None],
        json_name="report.json",
    )


def _subject(report: Report) -> list[tuple[str, str]]:
    config, name = report.config, report.objective.name
    parameters = ", ".join(
        f"{key} {value:g}" for key, value in report.objective.parameters.items() if value is not None
    )
    seeds = ", ".join(str(seed) for seed in report.seeds)
    return [
        ("objective", f"{name} ({parameters})" if parameters else name),
        ("data", DataSection(source=config["data"]["source"]).label),
        ("benchmark", config["benchmark"]["name"]),
        ("judge", config["judge"]["name"]),
        ("adapter", config["adapter"]["kind"]),
        ("seeds" if len(report.seeds) > 1 else "seed", seeds),
    ]


def _reproduce(report: Report) -> Section:
    again = report.reproduce
    rows = list(_config_rows(report.config))
    blocks: list[Block] = []
    if again.from_file is not None:
        blocks += [Text("From the resolved configuration in the run folder:"), Code(again.from_file)]
    if again.from_flags is not None:
        blocks += [Text("Or with nothing but the command line:"), Code(again.from_flags)]
    blocks += [
        Text(again.note, "note"),
        Heading("Resolved configuration"),
        Text("Keys that differ from their default:", "note"),
        Facts([(key, value) for key, value, is_default in rows if not is_default], code=True),
        Fold(
            "All other keys, at their default",
            [Facts([(key, value) for key, value, is_default in rows if is_default], code=True)],
            detail=True,
        ),
        Heading("Objective"),
        Facts(list(_facts(fields_form(report.objective)))),
        Heading("Versions and hardware"),
        Facts(list(_facts(report.versions))) if report.versions else Text("versions.json is not in this run folder."),
    ]
    if report.plan:
        blocks.append(Fold("What was planned before the run", [Facts(list(_facts(report.plan)))], detail=True))
    return Section("repeat", "Reproduce", "Reproduce it", blocks)


def _config_rows(tree: Mapping[str, Any]) -> Iterable[tuple[str, str, bool]]:
    """Every key of the resolved configuration, as it would be written, and whether it is at its default."""
    for key in keys():
        section, _, name = key.rpartition(".")
        value, default = (tree[section][name] if section else tree[name]), default_of(key)
        at_default = value == (list(default) if isinstance(default, tuple) else default)
        yield key, json.dumps(value, ensure_ascii=False), at_default


def _facts(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """A nested mapping as name and value, full_name."""
    for name, value in tree.items():
        full_name = f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _facts(value, f"{full_name}.")
        elif isinstance(value, list | tuple):
            yield full_name, ", ".join(str(item) for item in value) or "none"
        elif isinstance(value, float):
            yield full_name, significant(value, digits=4)
        else:
            yield full_name, "not set" if value is None else str(value)
