"""`comparison.html`: which of two is better, on the prompts that both were judged on. No number is made here."""

from __future__ import annotations

from dataclasses import replace
from itertools import takewhile
from pathlib import Path

from trimtab.analysis.comparison import Comparison
from trimtab.analysis.intervals import finite
from trimtab.analysis.length_control_paired import ControlledDifference
from trimtab.records import Direction, Estimate
from trimtab.reporting.sections import (
    Block,
    Bullets,
    Code,
    Facts,
    Forest,
    ForestRow,
    Page,
    Section,
    Sentence,
    SummaryEntry,
    Table,
    Text,
    Tone,
    sentence,
)
from trimtab.reporting.text import counted, interval, number, with_sign
from trimtab.reporting.words.summary import brief, certainty, warning_count
from trimtab.studies.comparison.numbers import ComparisonNumbers
from trimtab.studies.comparison.words import figure, test_text


def page(numbers: ComparisonNumbers, *, command: str) -> Page:
    """Everything that the page says; of both paths what tells them apart."""
    a, b = _short_names(numbers.a, numbers.b)
    numbers = replace(numbers, a=a, b=b)
    whole = numbers.whole
    warnings = [sentence(text, "warn") for text in numbers.warnings]
    against = [("against", numbers.baseline)] if numbers.baseline else []
    return Page(
        kind="compare",
        title=f"{numbers.a} against {numbers.b}",
        subject=[
            ("judge", numbers.judge),
            *against,
            ("common prompts", number(whole.n_common)),
            ("seeds", number(whole.n_seeds)),
        ],
        summary=brief(_summary(numbers, warnings)),
        sentences=[*warnings, *(sentence(note) for note in numbers.notes)],
        sections=[
            _difference_section(numbers),
            Section("repeat", "Reproduce", "Reproduce it", [Code(command)]),
        ],
        json_name="comparison.json",
    )


def _short_names(a: str, b: str) -> tuple[str, str]:
    """Both without the folders that they share: `a/x/seed-0` and `a/y/seed-0` are `x/seed-0` and `y/seed-0`."""
    parts = [Path(name).parts for name in (a, b)]
    n_shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(*parts, strict=False)))
    short = ["/".join(part[n_shared:]) for part in parts]
    return (short[0], short[1]) if all(short) else (a, b)


def _summary(numbers: ComparisonNumbers, warnings: list[Sentence]) -> list[SummaryEntry]:
    whole = numbers.whole
    entries = [
        SummaryEntry(
            "What was compared",
            [
                sentence(
                    f"{numbers.a} ({figure(whole.mean_a)} {numbers.scale}) and {numbers.b} ({figure(whole.mean_b)}), "
                    f"judged by {numbers.judge} on {counted(whole.n_common, 'common prompt')}."
                )
            ],
        ),
        SummaryEntry("Which is better?", [_verdict(numbers)], main=True),
    ]
    if numbers.length is not None:
        text = f"The first one's answers differ in length by {_text(numbers.length, 'characters')}"
        if (fit := numbers.length_controlled) is not None:
            text += f"; with length controlled it is {_text(fit, numbers.unit)} ahead"
        entries.append(SummaryEntry("Is it length?", [sentence(f"{text}.")]))
    test = test_text(whole)
    sure = certainty(whole.n_seeds, "prompts", single="One training run a side") + (
        f" {test[0].upper()}{test[1:]}." if test else ""
    )
    return [*entries, SummaryEntry("How sure?", [sentence(sure), *warning_count(warnings)])]


def _verdict(numbers: ComparisonNumbers) -> Sentence:
    """A minus B, and what the interval lets one say."""
    whole = numbers.whole
    difference = _text(whole, numbers.unit)
    tones: dict[Direction, Tone] = {"above": "good", "below": "bad", "not distinguishable": "even", "unknown": "warn"}
    tone = tones[_estimate(whole).direction(0.0)]
    return sentence(f"{numbers.a} against {numbers.b}: **{whole.verdict}**, {difference}.", tone)


def _difference_section(numbers: ComparisonNumbers) -> Section:
    whole = numbers.whole
    rows = [ForestRow("all prompts", _estimate(whole), counted(whole.n_common, "prompt"))]
    rows += [
        ForestRow(name, _estimate(group), counted(group.n_common, "prompt"))
        for name, group in (numbers.groups or {}).items()
    ]
    lead = f"{numbers.a} minus {numbers.b}, in {numbers.unit}, paired by prompt, with 95 % intervals."
    facts = [
        ("better on", f"{number(whole.wins_a)} prompts"),
        ("worse on", f"{number(whole.wins_b)} prompts"),
        ("even on", f"{number(whole.ties)} prompts"),
        ("without a verdict on one side", number(whole.n_missing)),
    ]
    blocks: list[Block] = [Text(lead, "lead"), Forest(rows, "differences", even=0.0), Facts(facts)]
    if numbers.groups:
        blocks.append(Bullets(["Each group is tested alone: one in twenty differs by chance."]))
        head = ["group", f"difference, {numbers.unit}", "verdict"]
        cells = [[name, _text(group, ""), group.verdict] for name, group in numbers.groups.items()]
        blocks.append(Table(head, cells, title="every group", text=True))
    return Section("difference", "Difference", "How large is the difference?", blocks)


def _text(difference: Comparison | ControlledDifference, unit: str) -> str:
    bounds = tuple(map(finite, difference.ci95))
    margin = "no interval" if None in bounds else f"95 % CI {interval(bounds, digits=2)}"
    return f"{with_sign(finite(difference.delta), digits=2)} {unit} ({margin})".replace("  ", " ")


def _estimate(difference: Comparison) -> Estimate:
    low, high = map(finite, difference.ci95)
    bounds = None if low is None or high is None else (low, high)
    return Estimate(finite(difference.delta), bounds, difference.n_common, difference.method)
