"""Marks of both models: a radar by category, the differences as a forest, turns and categories as a table."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.analysis import plots
from trimtab.reporting.numbers.benchmark import BenchmarkNumbers
from trimtab.reporting.numbers.marks import MarkGroup, MarkNumbers
from trimtab.reporting.numbers.paired_change import PairedChange
from trimtab.reporting.read import Side
from trimtab.reporting.sections import (
    Block,
    Figures,
    Forest,
    ForestKind,
    ForestRow,
    Heading,
    Plot,
    Section,
    Table,
    Text,
)
from trimtab.reporting.text import estimate_text, interval, number

ROLES: dict[Side, str] = {"unaligned": "before", "aligned": "after"}  # the aligned model is drawn on top


def marks(benchmark: BenchmarkNumbers | None) -> Section | None:
    if benchmark is None or benchmark.marks is None:
        return None
    numbers = benchmark.marks
    lead = (
        f"Mean mark of 10, judge: {numbers.judge}, {number(numbers.n_questions)} questions; intervals are over "
        "questions, whose turns hang together. Categories are small: one in twenty differs by chance alone."
    )
    sides, categories = list(numbers.models), numbers.categories
    blocks: list[Block] = [
        Text(lead, "lead"),
        Figures([_radar(categories, sides)] if len(categories) > 2 else [], beside=_table(numbers, sides)),
    ]
    if numbers.overall.change is not None:
        changes = [_change_row("all", numbers.overall.change, "truth")]
        changes += [_change_row(group.name, group.change, "judge") for group in numbers.groups if group.change]
        blocks += [
            Heading("Aligned minus unaligned, paired by question"),
            Forest(changes, "Aligned minus unaligned, marks", even=0.0, digits=2),
        ]
    if categories:
        blocks.append(_turns_table(categories, sides))
    missing = ", ".join(f"{side} {number(n)}" for side, n in numbers.n_missing.items())
    blocks.append(Text(f"Marks that could not be read: {missing}.", "note"))
    return Section("marks", "Marks", "Marks", blocks)


def _radar(categories: Sequence[MarkGroup], sides: Sequence[Side]) -> Plot:
    values = {role: [group.means[side].value for group in categories] for side, role in ROLES.items() if side in sides}
    return Plot(
        plots.radar_plot([group.name for group in categories], values, top=10),
        "By category",
        "mean mark, from 0 in the middle to 10 at the rim; grey: unaligned, strong: aligned",
    )


def _change_row(name: str, change: PairedChange, kind: ForestKind) -> ForestRow:
    tally = f"{change.wins_a} better, {change.ties} equal, {change.wins_b} worse"
    return ForestRow(name, change.estimate, f"{number(change.estimate.n)} questions: {tally}", kind)


def _table(numbers: MarkNumbers, sides: Sequence[Side]) -> Table:
    has_change = len(sides) > 1
    means = [("all", numbers.overall.means, numbers.overall.change)]
    means += [(group.name, group.means, group.change) for group in numbers.groups]
    rows = [
        [
            name,
            number(of_side["aligned"].n),
            *(estimate_text(of_side[side], digits=2) for side in sides),
            *([estimate_text(None if change is None else change.estimate, digits=2)] if has_change else []),
        ]
        for name, of_side, change in means
    ]
    return Table(["", "questions", *sides, *(["difference"] if has_change else [])], rows)


def _turns_table(categories: Sequence[MarkGroup], sides: Sequence[Side]) -> Table:
    turns = list(categories[0].turns)
    rows = [
        [
            group.name,
            *(number(group.turns[turn].means[side].value, digits=2) for turn in turns for side in sides),
            *(_difference(change) for turn in turns if (change := group.turns[turn].change) is not None),
        ]
        for group in categories
    ]
    head = [
        "",
        *(f"turn {turn}, {side}" for turn in turns for side in sides),
        *(f"difference, turn {turn}" for turn in turns if len(sides) > 1),
    ]
    return Table(head, rows, title="categories by turn")


def _difference(change: PairedChange) -> str:
    return f"{number(change.estimate.value, digits=2)} ({interval(change.estimate.ci95, digits=2)})"
