"""The page of `trimtab probe`: plots first, the tables behind them. No number is made here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from trimtab.analysis.probe_plots import Dots, curves_plot, dots_plot
from trimtab.analysis.rank_correlation import Correlation
from trimtab.records import Estimate
from trimtab.reporting.sections import (
    Block,
    Bullets,
    Code,
    Figures,
    Heading,
    Page,
    Plot,
    Section,
    Sentence,
    SummaryEntry,
    Table,
    Text,
    sentence,
)
from trimtab.reporting.text import MISSING, counted, estimate_text, number
from trimtab.reporting.words.summary import brief, certainty, warning_count
from trimtab.studies.length_probe.answer_lengths import AnswerNumbers
from trimtab.studies.length_probe.numbers import SIDES, BinCount, Contrast, RunNumbers, Side
from trimtab.studies.length_probe.run_difference import RunDifference
from trimtab.studies.length_probe.words import CONTRASTS, SIDE_NAMES

_NOTES = (
    "A response is saturated at a visit when {saturation}. It has left from the first visit after which it pulls no "
    "more; a response that still pulls at its last visit never left, and counts as later than all that did.",
    "Time to saturation is counted in visits, one an epoch: 0 when it never pulled, {visits} when it never left. Its "
    "mean is therefore a restricted one; the order within an epoch is random and is left out.",
    "A negative correlation says that longer responses, or pairs with the longer chosen response, leave earlier. All "
    "are rank correlations; what is held equal enters by its ranks, their squares and products, and is taken out of "
    "both by least squares.",
    "Log-ratios are sums over tokens: a response's own length decides how far it has to go and how far it can go, "
    "whatever the other one is. “Own length” tells that from the effect of being the longer one. For both responses "
    "together, and for the pair, it is their total.",
    "True quality is the oracle's, blind to length; it is known in the embedded world alone. The reference's "
    "log-probability does not measure quality.",
    "Intervals treat pairs as the sample (and seeds, where there are several); those of correlations draw whole "
    "prompts with all of their pairs.",
)
_SHORT: Mapping[Contrast, str] = {
    "length_difference": "difference",
    "at_equal_quality": "… equal quality",
    "at_equal_reference": "… equal reference",
    "at_equal_length": "… equal own length",
    "at_equal_quality_and_length": "… equal both",
    "own_length": "own length",
    "pull": "pull at the end",
}
_RESPONSE_SIDES: tuple[Side, ...] = ("chosen", "rejected")
# roles of the palette for one judge each, and what their colours are called
_JUDGE_COLOURS = {"after": "green", "third": "violet", "rejected": "orange", "before": "grey"}


def page(
    runs: Sequence[RunNumbers], differences: Sequence[RunDifference], *, sentences: Sequence[Sentence], command: str
) -> Page:
    visits = _distinct(str(run.run.n_visits) for run in runs)
    saturation = _distinct((run.saturation for run in runs), separator="; ")
    notes = [note.format(saturation=saturation, visits=visits) for note in _NOTES] + _left_out(runs)
    method: list[Block] = [Bullets(notes), Heading("Repeat it"), Code(command)]
    first = runs[0].run
    return Page(
        kind="probe",
        title="Do pairs with the longer chosen response leave training first?",
        subject=[
            ("objective", _distinct(run.run.objective.name for run in runs)),
            ("data", _distinct(run.run.data for run in runs)),
            ("pairs", number(len(first.length_PS))),
            ("visits to each", visits),
            ("seeds" if len(first.seeds) > 1 else "seed", ", ".join(map(str, first.seeds))),
        ],
        summary=brief(_summary(runs, sentences)),
        sentences=sentences,
        sections=[
            *(
                section
                for at, run in enumerate(runs)
                for section in _run_sections(run, at=at, with_label=len(runs) > 1)
            ),
            *(_difference_section(difference, at) for at, difference in enumerate(differences)),
            Section("how", "How it is measured", "How it is measured", method),
        ],
        json_name="probe.json",
    )


def _summary(runs: Sequence[RunNumbers], sentences: Sequence[Sentence]) -> list[SummaryEntry]:
    """The verdict on the first run; those on the others stand below."""
    first = runs[0].run
    labels = _distinct(run.label for run in runs[:3]) + " and others" * (len(runs) > 3)
    trained = (
        f"{counted(len(runs), 'run')} with {labels}; "
        f"{counted(len(first.length_PS), 'pair')} of {first.data}, each visited {counted(first.n_visits, 'time')}."
    )
    sure = [
        sentence(certainty(len(first.seeds), "pairs")),
        *warning_count([note for note in sentences[1:] if note.tone == "warn"]),
    ]
    return [
        SummaryEntry("What was trained", [sentence(trained)]),
        SummaryEntry("Do the longer ones leave first?", sentences[:1], main=True),
        SummaryEntry("How sure?", sure),
    ]


def _distinct(texts: Iterable[str], *, separator: str = ", ") -> str:
    return separator.join(dict.fromkeys(texts))


def _left_out(runs: Sequence[RunNumbers]) -> list[str]:
    notes = []
    for run in runs:
        if run.run.n_left_out:
            notes.append(f"{run.label}: {number(run.run.n_left_out)} pairs had fewer visits and are left out.")
        if run.run.reference_PS is None:
            notes.append(f"{run.label}: the reference's log-probabilities are not available.")
    return notes


def _run_sections(run: RunNumbers, *, at: int, with_label: bool) -> list[Section]:
    sections = [_activity(run), _times(run), _own_length(run), _correlations(run)]
    sections += [] if run.answers is None else [_answers(run.answers)]
    if with_label:
        sections = [
            replace(s, name=f"{at + 1}. {s.name}", title=f"{run.label}: {s.title[0].lower()}{s.title[1:]}")
            for s in sections
        ]
    return [replace(section, anchor=f"{section.anchor}-{at}") for section in sections]


def _activity(run: RunNumbers) -> Section:
    labels = _labels(run.bins)
    plots, tables = [], []
    for side in SIDES:
        numbers = run.sides[side]
        title = f"Active: {SIDE_NAMES[side]}"
        curves = numbers.active_by_step
        svg = curves_plot(curves.step, curves.share, labels, title=f"{title}, by length difference")
        share_left = f"{number(numbers.share_left.scaled(100).value)} % left before the end"
        plots.append(Plot(svg, title, share_left))
        rows = [
            [entry.label, number(entry.n), *(estimate_text(share.scaled(100)) for share in shares)]
            for entry, shares in zip(run.bins, numbers.active, strict=True)
        ]
        head = ["longer by", "pairs", *(f"visit {v + 1}" for v in range(run.run.n_visits))]
        tables.append(Table(head, rows, title=f"share active at each visit, %, {SIDE_NAMES[side]}"))
    lead = (
        "Share still active over training, by len(chosen) − len(rejected) in tokens: from the shortest (orange) to the "
        "longest chosen response (green)."
    )
    blocks: list[Block] = [Text(lead, "lead"), Figures(plots), *tables]
    return Section("leaving", "Who leaves when", "Who leaves training when?", blocks)


def _times(run: RunNumbers) -> Section:
    series = [Dots(side, [times.mean for times in run.sides[side].visits]) for side in _RESPONSE_SIDES]
    svg = dots_plot(_labels(run.bins), series, unit="visits until it left, mean", title="Time to saturation by bin")
    sides: tuple[Side, ...] = (*_RESPONSE_SIDES, "pair")
    rows = []
    for at, entry in enumerate(run.bins):
        cells = []
        for times in (run.sides[side].visits[at] for side in sides):
            median = "more" if times.median is None else number(times.median, digits=0)
            cells += [estimate_text(times.mean, digits=2), median, estimate_text(times.never.scaled(100), digits=0)]
        rows.append([entry.label, *cells])
    head = ["longer by", *(f"{side}: {figure}" for side in sides for figure in ("mean", "median", "never, %"))]
    lead = f"In visits; a response that never left counts as {run.run.n_visits}. Green: chosen, orange: rejected."
    return Section(
        "times",
        "Time to saturation",
        "How long until a response has left?",
        [
            Text(lead, "lead"),
            Figures([Plot(svg, "Time to saturation", "by length difference, tokens")]),
            Table(head, rows, title="mean, median, and share that never left"),
        ],
    )


def _own_length(run: RunNumbers) -> Section:
    plots, tables = [], []
    for side in _RESPONSE_SIDES:
        own = run.own_length[side]
        svg = dots_plot(
            _labels(own.bins),
            [Dots(side, [row.times.mean for row in own.rows])],
            unit="visits until it left, mean",
            title=f"Time by own length, {side}",
        )
        plots.append(Plot(svg, side.capitalize(), "by its own length, tokens"))
        rows = [
            [
                entry.label,
                number(entry.n),
                estimate_text(row.times.mean, digits=2),
                estimate_text(row.times.never.scaled(100), digits=0),
                estimate_text(row.log_ratio, digits=2),
                estimate_text(row.log_ratio_a_token, digits=3),
            ]
            for entry, row in zip(own.bins, own.rows, strict=True)
        ]
        head = [f"{side}, tokens", "n", "visits", "never left, %", "log-ratio at the end, nats", "nats a token"]
        tables.append(Table(head, rows, title=f"{side} responses by their own length"))
    lead = (
        "With log-ratios summed over tokens a longer response has further to go, and can go further. This is the "
        "mechanical effect, to be told from that of being the longer of the two."
    )
    blocks: list[Block] = [Text(lead, "lead"), Figures(plots), *tables]
    return Section("own", "Own length", "Is it the response's own length?", blocks)


def _correlations(run: RunNumbers) -> Section:
    by_side = {side: run.sides[side].correlations for side in SIDES}
    head, contrasts, rows = _correlation_table(by_side)
    roles: tuple[tuple[str, Side], ...] = (("before", "responses"), ("chosen", "chosen"), ("rejected", "rejected"))
    series = [Dots(role, [_estimate(by_side[side].get(contrast)) for contrast in contrasts]) for role, side in roles]
    blocks: list[Block] = [
        Text(
            "Rank correlation of the time to saturation with the length difference, at equal quality and length. Not "
            "measured where fewer than ten responses have a time other than the most common one.",
            "lead",
        )
    ]
    if any(dot is not None and dot.value is not None for dots in series for dot in dots.estimates):
        labels = [_SHORT[contrast] for contrast in contrasts]
        svg = dots_plot(labels, series, unit="rank correlation", title="Rank correlations", even=0.0)
        note = "grey: both responses, green: chosen, orange: rejected; left of 0 = the longer leave earlier"
        blocks.append(Figures([Plot(svg, "Time to saturation and length", note)]))
    verdicts = [by_side[side].get(run.sides[side].verdict.by) for side in SIDES]
    sizes = [MISSING if entry is None else f"±{number(entry.detectable, digits=3)}" for entry in verdicts]
    rows.append(["detectable (power 80 %)", *sizes])
    blocks.append(Table(head, rows, title="every correlation"))
    return Section("order", "Correlations", "Is there an order?", blocks)


def _correlation_table(
    by_side: Mapping[Side, Mapping[Contrast, Correlation]],
) -> tuple[list[str], list[Contrast], list[list[str]]]:
    """Its head, the contrasts of its rows, and the rows."""
    contrasts = [contrast for contrast in CONTRASTS if any(contrast in by_side[side] for side in SIDES)]
    rows = [
        [CONTRASTS[contrast], *(estimate_text(_estimate(by_side[side].get(contrast)), digits=3) for side in SIDES)]
        for contrast in contrasts
    ]
    return ["", *(SIDE_NAMES[side] for side in SIDES)], contrasts, rows


def _answers(answers: AnswerNumbers) -> Section:
    judges = answers.judges
    series = list(zip(_JUDGE_COLOURS.items(), judges, strict=False))  # as many as there are colours
    svg = dots_plot(
        [entry.label for entry in answers.bins],
        [Dots(role, judge.bins) for (role, _), judge in series],
        unit="win rate, %",
        title="Win rate by length difference",
        even=50.0,
    )
    colours = ", ".join(f"{colour}: {judge.label}" for (_, colour), judge in series)
    rows = [
        [entry.label, number(entry.n), estimate_text(entry.share), *(estimate_text(judge.bins[at]) for judge in judges)]
        for at, entry in enumerate(answers.bins)
    ]
    rows += [
        ["all", "", "", *(estimate_text(judge.win_rate) for judge in judges)],
        [
            "rank correlation of score and difference",
            "",
            "",
            *(estimate_text(judge.correlation.estimate, digits=3) for judge in judges),
        ],
        ["without a verdict", "", "", *(number(judge.n_missing) for judge in judges)],
    ]
    head = ["longer by", "answers", "share, %", *(judge.label for judge in judges)]
    lead = (
        f"Aligned answers to {answers.benchmark} against those of {answers.baseline}, by how much longer they are in "
        f"{answers.unit}. On average they are longer by {estimate_text(answers.change)} {answers.unit}."
    )
    figures = Figures([Plot(svg, "Win rate", colours)])
    table = Table(head, rows, title="win rate by length difference, %")
    return Section("answers", "Answers", "And in the answers?", [Text(lead, "lead"), figures, table])


def _difference_section(difference: RunDifference, at: int) -> Section:
    first, sides = difference.first, difference.sides
    blocks: list[Block] = [Text(f"Not compared pair by pair: {difference.why_not}.", "lead")]
    if difference.why_not is None:
        shares = {side: [share.scaled(100) for share in sides[side].active] for side in SIDES}
        svg = dots_plot(
            _labels(first.bins),
            [Dots(side, shares[side]) for side in _RESPONSE_SIDES],
            unit="points of share active",
            title="Difference of shares active",
            even=0.0,
        )
        rows = [
            [entry.label, *(estimate_text(shares[side][row]) for side in SIDES)] for row, entry in enumerate(first.bins)
        ]
        head, _, correlation_rows = _correlation_table({side: sides[side].correlations for side in SIDES})
        lead = f"The first less the second, on the same pairs and prompts; shares at visit {difference.visit}."
        blocks = [
            Text(lead, "lead"),
            Figures([Plot(svg, "Share active", "difference by bin; green: chosen, orange: rejected")]),
            Table(["longer by", *head[1:]], rows, title="difference of shares active, points"),
            Table(head, correlation_rows, title="difference of correlations"),
        ]
    title = f"{first.label} against {difference.second.label}"
    return Section(f"against-{at}", f"1 against {at + 2}", title, blocks)


def _labels(bins: Sequence[BinCount]) -> list[str]:
    return [entry.label for entry in bins]


def _estimate(correlation: Correlation | None) -> Estimate | None:
    return None if correlation is None else correlation.estimate
