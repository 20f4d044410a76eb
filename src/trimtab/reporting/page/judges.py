"""Win rates by judge, who judged, and win rates by difference in length."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.analysis.canaries import CanaryRow
from trimtab.analysis.intervals import finite
from trimtab.records import Estimate
from trimtab.reporting.forest import EVEN
from trimtab.reporting.judges import JudgeCanary
from trimtab.reporting.numbers.benchmark import BenchmarkNumbers
from trimtab.reporting.numbers.judges import JudgeNumbers, LengthControlNumbers, UnalignedNumbers
from trimtab.reporting.sections import (
    Block,
    Facts,
    Forest,
    ForestRow,
    Heading,
    Section,
    Sentence,
    Sentences,
    Table,
    Text,
)
from trimtab.reporting.text import counted, estimate_text, number, significant, value_text
from trimtab.runtime.judges.judge_record import JudgeRecord

_SHORT = 16  # digits of a digest on the page; report.json has all of them
CANARIES_LEAD = (
    "Answers of which it is known what a sound judge says: the baseline against itself must come out even, the others "
    "should lose nearly everywhere."
)


# --- win rates -------------------------------------------------------------------------------------------------------


def win_rates(benchmark: BenchmarkNumbers | None) -> Section | None:
    """Every judge's win rate, raw and length-controlled, the unaligned model's beside it, and each seed's."""
    if benchmark is None or not benchmark.judges or benchmark.baseline is None:
        return None
    judges, name = benchmark.judges, benchmark.baseline.name
    rows = [row for judge in judges for row in _forest_rows(judge)]
    blocks: list[Block] = [
        Text(_lead(benchmark.published_baseline), "lead"),
        Forest(rows, "Win rates with 95 % intervals", EVEN),
    ]
    unaligned = next(((judge, judge.unaligned) for judge in judges if judge.unaligned), None)
    if unaligned is not None:
        blocks += [Heading("What alignment changed"), Facts(_change_facts(*unaligned, name))]
    blocks.append(_judges_table(judges))
    blocks += _length_control_table(judges)
    if len(judges[0].by_seed) > 1:
        blocks += _by_seed(judges[0])
    blocks += [Text(note, "note") for note in (*_refusal(benchmark.identity), *_notes(judges))]
    return Section("wins", "Win rates", "Win rates", blocks)


def _lead(baseline: str | None) -> str:
    rival = baseline or "the unaligned model"
    even = "no change" if baseline is None else f"as good as {baseline}, which is not no change"
    return (
        f"Share of prompts on which the aligned model's answer beats {rival}'s, ties counted as half, in percent with "
        f"95 % intervals. The dashed line is 50: {even}."
    )


def _forest_rows(judge: JudgeNumbers) -> list[ForestRow]:
    suffix = ", aligned" if judge.unaligned else ""
    rows = [
        ForestRow(
            f"{'True' if judge.is_truth else 'Raw'} win rate{suffix}",
            judge.win_rate,
            _judge_and_n(judge, judge.win_rate),
            "truth" if judge.is_truth or judge.unaligned else "judge",
        )
    ]
    if judge.unaligned:
        rate = judge.unaligned.win_rate
        rows.append(ForestRow("Raw win rate, unaligned", rate, _judge_and_n(judge, rate)))
    if judge.length_controlled:
        rate = judge.length_controlled.win_rate
        doubt = ", uncalibrated" if judge.length_controlled.calibrated is False else ""
        name = f"Length-controlled win rate{suffix}{doubt}"
        rows.append(ForestRow(name, rate, _judge_and_n(judge, rate), "lc"))
    return rows


def _judge_and_n(judge: JudgeNumbers, estimate: Estimate) -> str:
    return f"judge: {judge.label} · {_n(estimate)}"


def _n(estimate: Estimate) -> str:
    seeds = f", {estimate.n_seeds} seeds" if estimate.n_seeds > 1 else ""
    return f"{number(estimate.n)} prompts{seeds}"


def _change_facts(judge: JudgeNumbers, unaligned: UnalignedNumbers, baseline: str) -> list[tuple[str, str]]:
    """The paired comparison of both models against the same baseline."""
    change = unaligned.change
    n_missing = change.estimate.n_missing
    left_out = f", {number(n_missing)} left out" if n_missing else ""
    return [
        (f"aligned, % against {baseline}", estimate_text(judge.win_rate)),
        (f"unaligned, % against {baseline}", estimate_text(unaligned.win_rate)),
        ("difference, points, paired by prompt", estimate_text(change.estimate)),
        ("prompts", f"{number(change.estimate.n)}{left_out}"),
        (
            "aligned better, equal, unaligned better",
            f"{number(change.wins_a)}, {number(change.ties)}, {number(change.wins_b)}",
        ),
        (f"p, {change.test}", significant(change.p_value)),
        ("judge", judge.label),
    ]


def _judges_table(judges: Sequence[JudgeNumbers]) -> Table:
    rows = []
    for judge in judges:
        rate = judge.win_rate
        counts = (rate.n, rate.n_missing, judge.n_wins, judge.n_ties, judge.n_losses)
        p_value = "–" if judge.p_value is None else significant(judge.p_value)
        rows.append([judge.label, estimate_text(rate), *(number(count) for count in counts), p_value])
    head = ["judge", "win rate %", "n", "no verdict", "wins", "ties", "losses", "p, of 50 %"]
    return Table(head, rows, title="every judge")


def _length_control_table(judges: Sequence[JudgeNumbers]) -> list[Table]:
    rows = [
        [
            judge.label,
            str(entry.seed),
            value_text(finite(entry.fit.length_controlled_winrate), [finite(end) for end in entry.fit.lc_ci95]),
            significant(entry.fit.lc_c),
            ", ".join(f"{c:.4g}: {number(rate)}" for c, rate in entry.fit.lc_neighbours),
            entry.fit.variant,
        ]
        for judge in judges
        if judge.length_controlled is not None
        for entry in judge.length_controlled.by_seed
    ]
    head = ["judge", "seed", "LC win rate %", "C chosen", "LC at C and its neighbours", "model"]
    return [Table(head, rows, title="length control and its sensitivity")] if rows else []


def _by_seed(judge: JudgeNumbers) -> list[Block]:
    rows = [ForestRow(f"Seed {entry.seed}", entry.win_rate, f"judge: {judge.label}") for entry in judge.by_seed]
    rows.append(ForestRow("Pooled", judge.win_rate, _n(judge.win_rate), "truth"))
    table = [
        [
            str(entry.seed),
            estimate_text(entry.win_rate),
            *(number(count) for count in (entry.win_rate.n, entry.n_wins, entry.n_ties, entry.n_losses)),
        ]
        for entry in judge.by_seed
    ]
    return [
        Heading("By seed"),
        Forest(rows, "Win rate of every seed", EVEN),
        Table(["seed", "win rate %", "n", "wins", "ties", "losses"], table, title="every seed"),
    ]


def _refusal(record: JudgeRecord | None) -> list[str]:
    if record is None or not record.refused:
        return []
    return [
        f"No headline number: {number(record.n_missing)} of {number(record.n_prompts)} verdicts are missing. "
        "What is shown here is of the rest only."
    ]


def _notes(judges: Sequence[JudgeNumbers]) -> list[str]:
    notes = [f"Intervals: {judges[0].win_rate.method}."]
    for judge in judges:
        if judge.detectable is not None and judge.direction == "not distinguishable":
            notes.append(
                f"With {number(judge.win_rate.n)} prompts and this spread, {judge.label} shows a difference "
                f"of {number(judge.detectable)} points from 50 four times in five; smaller ones need more prompts."
            )
        if judge.length_controlled is not None:
            notes += _length_control_notes(judge.length_controlled)
    return notes


def _length_control_notes(control: LengthControlNumbers) -> list[str]:
    its_interval = "" if control.win_rate.ci95 is None else f"; its interval: {control.win_rate.method}"
    notes = (
        [f"Length control: {control.variant}, C chosen by cross-validation{its_interval}."]
        if control.win_rate.value is not None
        else []
    )
    if control.calibrated is False:
        notes.append(
            "The length model's constants were fitted to the leaderboard's judge; for another judge they are "
            "uncalibrated, and the figure is comparable with no other."
        )
    notes += [f"{note[0].upper()}{note[1:]}." for note in control.notes]
    return notes + sorted({note for entry in control.by_seed for note in entry.fit.notes})


# --- the judge -------------------------------------------------------------------------------------------------------


def judge(benchmark: BenchmarkNumbers | None) -> Section | None:
    """Who judged, with what, at what cost, and what its canaries showed."""
    if benchmark is None or (benchmark.identity is None and not benchmark.canaries):
        return None
    blocks: list[Block] = []
    if alarms := [canary for canary in benchmark.canaries if canary.row.alarm]:
        blocks.append(Sentences([Sentence(f"{canary.judge}: {canary.row.sentence}", "warn") for canary in alarms]))
    record = benchmark.identity
    if record is not None:
        blocks.append(Facts(_record_facts(record)))
    if benchmark.canaries:
        blocks += [Heading("Canaries"), Text(CANARIES_LEAD, "lead"), _canaries_table(benchmark.canaries)]
    if record is not None:
        blocks += [*_texts_table(record), *(Text(note, "note") for note in record.usage.notes)]
    return Section("judge", "Judge", "The judge", blocks)


def _texts_table(record: JudgeRecord) -> list[Table]:
    rows = [
        [name, _digest(text.get("sha256")) or "–", "yes" if text.get("official") else "no: not comparable"]
        for name, text in record.identity.texts.items()
    ]
    return [Table(["text", "sha256", "official"], rows, title="the official texts")] if rows else []


def _record_facts(record: JudgeRecord) -> list[tuple[str, str]]:
    judge, usage = record.identity, record.usage
    permission = " (allowed by --allow-missing)" if record.allow_missing and record.n_missing else ""
    rows = [
        ("judge", judge.judge),
        ("model", usage.model),
        ("asked at", usage.base_url),
        ("rubric", judge.rubric),
        ("prompt, sha256", _digest(judge.prompt_sha256)),
        ("order of the answers", judge.order),
        ("verdicts missing", f"{number(record.n_missing)} of {number(record.n_prompts)}{permission}"),
        ("asked now, from the store, failed", _listed_numbers(usage.n_asked, usage.n_cached, usage.n_failed)),
        ("tokens in, out", _listed_numbers(usage.prompt_tokens, usage.completion_tokens)),
        ("cost of this run", "not known" if usage.cost_usd is None else f"{usage.cost_usd:.2f} USD"),
    ]
    return [(name, value) for name, value in rows if value]


def _listed_numbers(*counts: int) -> str:
    return ", ".join(number(count) for count in counts)


def _digest(sha256: str | None) -> str | None:
    return f"{sha256[:_SHORT]}…" if sha256 else None


def _canaries_table(canaries: Sequence[JudgeCanary]) -> Table:
    rows = [_canary_cells(canary.judge, canary.row) for canary in canaries]
    return Table(["canary", "judge", "expected %", "got %", "prompts", "no verdict", "alarm"], rows)


def _canary_cells(judge: str, row: CanaryRow) -> list[str]:
    rate = value_text(row.win_rate, row.ci95, digits=0)
    counts = (number(row.n), number(row.n_missing))
    return [row.name, judge, f"{row.expected:.0f}", rate, *counts, "⚠ yes" if row.alarm else "no"]


# --- win rate by difference in length --------------------------------------------------------------------------------


def length_bins(benchmark: BenchmarkNumbers) -> list[Block]:
    """Win rate by how much longer the aligned answer is: a judge that sees length as a forest, all as a table."""
    if len(benchmark.length_bins) < 2:
        return []
    judges, bins = benchmark.judges, benchmark.length_bins
    plotted_judge = next((judge for judge in judges if not judge.is_truth), judges[0])
    rows = [ForestRow(_gap(row.gap), row.judges[plotted_judge.judge], counted(row.n_prompts, "prompt")) for row in bins]
    table = [
        [_gap(row.gap), number(row.n_prompts), *(estimate_text(row.judges[judge.judge]) for judge in judges)]
        for row in bins
    ]
    rival = benchmark.published_baseline or "the unaligned model"
    lead = (
        f"Win rate in percent where the aligned answer is so many characters longer than {rival}'s; judge: "
        f"{plotted_judge.label}. A rate that climbs with length is a judge that likes length, or a model that is "
        "better where it says more: the two cannot be told apart here, which is why length is also controlled for."
    )
    head = ["characters longer", "prompts", *(f"win rate %, {judge.label}" for judge in judges)]
    return [
        Heading("Win rate by difference in length"),
        Text(lead, "lead"),
        Forest(rows, "Win rate by difference in length", EVEN),
        Table(head, table, title="win rate by difference in length"),
    ]


def _gap(gap: tuple[float, float]) -> str:
    low, high = (f"{end:+.0f}".replace("-", "−") for end in gap)
    return low if low == high else f"{low} to {high}"
