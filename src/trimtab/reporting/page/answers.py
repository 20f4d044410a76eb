"""What was answered: win rates and true scores by family, lengths, answers side by side."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from trimtab.analysis import plots
from trimtab.analysis.comparison import MIN_COMMON
from trimtab.reporting.forest import EVEN
from trimtab.reporting.numbers.answers import LengthNumbers, ScoreNumbers
from trimtab.reporting.numbers.benchmark import BenchmarkNumbers
from trimtab.reporting.numbers.samples import SampleAnswer, SampleGroup, SampleRow
from trimtab.reporting.page.judges import length_bins
from trimtab.reporting.sections import (
    Block,
    Figures,
    Fold,
    Forest,
    ForestKind,
    ForestRow,
    Heading,
    Plot,
    Sample,
    Samples,
    SampleSide,
    Section,
    Table,
    Text,
)
from trimtab.reporting.text import counted, estimate_text, number, shorten

LONGEST_TEXT = 1500  # characters of a text on the page; report.json has all of it
OUTCOMES = {"win": "aligned better", "loss": "aligned worse", "tie": "tie", "missing": "no verdict"}
SAMPLES_LEAD = (
    "Shown in the order of a hash of the prompt's id, one family after another, not chosen by quality; those that grew "
    "the most are a ranking."
)
JUDGED_LEAD = " As many losses as wins where there are as many: how often each happened is the win rate's business."


# --- families --------------------------------------------------------------------------------------------------------


def families(benchmark: BenchmarkNumbers | None) -> Section | None:
    """Win rates by the first judge as a forest, all judges as a table; true scores where they are known."""
    if benchmark is None or not benchmark.families or not benchmark.judges:
        return None
    rows, first = benchmark.families, benchmark.judges[0]
    small = [row.family for row in rows if row.judges[first.judge].n < MIN_COMMON]
    lead = (
        f"Win rate in percent, judge: {first.label}. One family in twenty "
        f"{'differs' if benchmark.published_baseline else 'leaves 50'} by chance alone."
        + (f" Too few prompts to conclude anything: {', '.join(small)}." if small else "")
    )
    kind: ForestKind = "truth" if first.is_truth else "judge"
    blocks: list[Block] = [
        Text(lead, "lead"),
        Forest(
            [ForestRow(row.family, row.judges[first.judge], counted(row.n_prompts, "prompt"), kind) for row in rows],
            "Win rates by family",
            EVEN,
        ),
        _family_table(benchmark),
    ]
    if benchmark.scores is not None:
        blocks += _true_scores(benchmark.scores)
    return Section("families", "By family", "By family", blocks)


def _family_table(benchmark: BenchmarkNumbers) -> Table:
    judges, rows = benchmark.judges, benchmark.families
    rates = [f"win rate %, {judge.label}" for judge in judges]
    changes = ["change by alignment, points" for _ in rows[0].changes]
    cells = [
        [
            row.family,
            number(row.n_prompts),
            *(estimate_text(row.judges[judge.judge]) for judge in judges),
            *(estimate_text(change.estimate) for change in row.changes.values()),
            estimate_text(row.characters.difference),
        ]
        for row in rows
    ]
    return Table(
        ["family", "prompts", *rates, *changes, "change in characters"], cells, title="families by every judge"
    )


def _true_scores(scores: ScoreNumbers) -> list[Block]:
    rows = [
        ForestRow(
            name, change.after, f"{counted(change.after.n, 'prompt')}, judge: oracle", "truth", change.before.value
        )
        for name, change in scores.families.items()
    ]
    table = [
        [
            name,
            number(change.after.n),
            *(estimate_text(estimate, digits=3) for estimate in (change.before, change.after, change.difference)),
        ]
        for name, change in {"all": scores.change, **scores.families}.items()
    ]
    return [
        Heading("True score by family"),
        Forest(rows, "True scores by family, before and after", even=None, digits=2),
        Table(["family", "n", "before", "after", "change"], table, title="true scores"),
    ]


# --- lengths ---------------------------------------------------------------------------------------------------------


def lengths(benchmark: BenchmarkNumbers | None) -> Section | None:
    """Histograms before and after, means in every unit, answers cut off, empty or unchanged."""
    if benchmark is None or benchmark.lengths is None:
        return None
    numbers, before = benchmark.lengths, benchmark.before
    unit, histogram = numbers.unit, numbers.histogram
    plot = Plot(
        plots.length_plot(histogram.edges, histogram.before, histogram.after, unit=unit),
        "Before and after" if before == "before" else "The baseline and the aligned model",
        f"share of answers by length, {unit}; the dashed line is the mean",
    )
    edges = histogram.edges
    names = [f"{low} to {high - 1}" for low, high in pairwise(edges[:-1])]
    bins = [
        [name, *(f"{number(100 * share)} %" for share in shares)]
        for name, *shares in zip([*names, f"{edges[-2]} and more"], histogram.before, histogram.after, strict=True)
    ]
    sides = "before and after" if before == "before" else "from the baseline and the aligned model"
    is_cut = bool(numbers.cut_off.before.value or numbers.cut_off.after.value)
    lead = (
        f"{number(numbers.n_identical)} of {number(numbers.n_compared)} answers are the same, letter by "
        f"letter, {sides}. Lengths are those of the whole answer as sampled"
        + ("; those cut at the limit would have been longer." if is_cut else ".")
    )
    blocks: list[Block] = [
        Text(lead, "lead"),
        Figures([plot], beside=Table(["", before, "after", "change", "n"], _length_rows(numbers))),
        Table([unit, before, "after"], bins, title="the histogram", detail=True),
        *length_bins(benchmark),
    ]
    return Section("lengths", "Lengths", "Answer lengths", blocks)


def _length_rows(numbers: LengthNumbers) -> list[list[str]]:
    rows = [
        [
            f"mean length, {name}",
            *(estimate_text(estimate) for estimate in (change.before, change.after, change.difference)),
            number(change.after.n),
        ]
        for name, change in numbers.by_unit.items()
    ]
    shares = (("cut off at the limit, share", numbers.cut_off), ("empty, share", numbers.empty))
    for name, sides in shares:
        before, after = (estimate_text(estimate, digits=3) for estimate in (sides.before, sides.after))
        rows.append([name, before, after, "", number(sides.after.n)])
    return rows


# --- samples ---------------------------------------------------------------------------------------------------------


def samples(groups: Sequence[SampleGroup]) -> Section | None:
    """Long texts are shorten; wins and losses stand open."""
    if not groups:
        return None
    folds = [
        Fold(
            group.title if group.n_all is None else f"{group.title} · {len(group.samples)} of {group.n_all}",
            [Samples([_sample(row) for row in group.samples])],
            open=group.group in ("win", "loss", "answer"),
        )
        for group in groups
    ]
    is_judged = any(group.group in ("win", "loss") for group in groups)
    lead = SAMPLES_LEAD + (JUDGED_LEAD if is_judged else "")
    return Section("samples", "Samples", "Answers side by side", [Text(lead, "lead"), *folds])


def _sample(row: SampleRow) -> Sample:
    def side(answer: SampleAnswer, label: str) -> SampleSide:
        text = shorten(answer.text, limit=LONGEST_TEXT) or "(empty)"
        return SampleSide(label, f"{answer.length} {row.unit}", text, answer.finished)

    return Sample(
        prompt_id=row.prompt_id,
        prompt=shorten(row.prompt, limit=LONGEST_TEXT),
        before=side(row.before, row.labels.before),
        after=side(row.after, row.labels.after),
        family=row.family,
        verdicts=" · ".join(f"{verdict.judge}: {OUTCOMES[verdict.outcome]}" for verdict in row.verdicts),
    )
