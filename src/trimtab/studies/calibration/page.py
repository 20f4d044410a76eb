"""The page of `trimtab calibrate`. No number is made here."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.analysis import plots
from trimtab.analysis.calibration import Bin
from trimtab.reporting.sections import (
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
from trimtab.reporting.text import estimate_text, number
from trimtab.reporting.words.summary import brief, certainty
from trimtab.studies.calibration.numbers import BY_CONSTRUCTION, CalibrationNumbers, Drift, Measures
from trimtab.studies.calibration.words import drift_rows, error_text, gap_rows, headline, token_rows

_NOTES = (
    "σ(gap) is read as Bradley and Terry do: the probability that the chosen response is preferred. Only the sigmoid "
    "losses are trained to make it so; a hinge stops at its margin, so its gaps say where training stopped.",
    "The most likely token's probability is compared with how often it is the token that comes, over all tokens of the "
    "chosen responses. Negative log-likelihood, entropy and divergence are in nats a token, over the whole vocabulary.",
    "Intervals resample held-out pairs (and seeds, where there are several), never single tokens, because the tokens "
    "of a response depend on each other. Changes are paired: the same responses under both models.",
    "The expected calibration error has no interval: close to 0 a bootstrap of it is misleading. Beside it stands what "
    "chance alone would show on this sample if the model were perfectly calibrated. Several seeds: the mean of theirs.",
    "The held-out responses are the data's, not the model's own: it may move away from them and still answer well.",
)


def page(numbers: CalibrationNumbers) -> Page:
    run, measures = numbers.run, numbers.measures
    objective, sentences = run.setup.objective.name, headline(numbers)
    sections = [
        _gap_section(measures),
        _token_section(measures, n_tokens=run.n_chosen_tokens),
        _drift_section(measures.drift),
        *([_seed_section(run.seeds, numbers.by_seed)] if numbers.by_seed else []),
        Section(
            "how",
            "How it is measured",
            "How it is measured",
            [Bullets(_NOTES), Heading("Repeat it"), Code(run.command)],
        ),
    ]
    return Page(
        kind="calibrate",
        title=f"{run.setup.config.model.name} aligned with {objective}: calibration",
        subject=[
            ("objective", objective),
            ("data", run.setup.config.data.label),
            ("adapter", run.setup.config.adapter.kind),
            ("held-out pairs", number(len(run.pairs))),
            ("seeds" if len(run.seeds) > 1 else "seed", ", ".join(str(seed) for seed in run.seeds)),
        ],
        summary=brief(_summary(numbers, *sentences)),
        sentences=sentences,
        sections=sections,
        json_name="calibration.json",
    )


def _summary(numbers: CalibrationNumbers, gap: Sentence, token: Sentence, drift: Sentence) -> list[SummaryEntry]:
    config = numbers.run.setup.config
    subject = f"{config.model.name} aligned with {numbers.run.setup.objective.name} on {config.data.label}"
    return [
        SummaryEntry("What was trained", [sentence(f"{subject}.")]),
        SummaryEntry("Does its reward know how right it is?", [gap], main=True),
        SummaryEntry("Did the next token suffer?", [token]),
        SummaryEntry("How far did it go?", [drift]),
        SummaryEntry("How sure?", [sentence(certainty(len(numbers.run.seeds), "held-out pairs"))]),
    ]


def _gap_section(measures: Measures) -> Section:
    before, after = measures.gaps_before, measures.gaps_after
    lead = "Of every held-out pair the reward gap predicts which response is preferred, with confidence σ(|gap|)."
    bins_before = before.error.bins if before else ()
    plot = Plot(
        plots.reliability_plot(bins_before, after.error.bins),
        "Reliability",
        f"{error_text(after.error)}; a dot grows with its pairs",
    )
    table = Table(["", *(["before"] if before else []), "after"], gap_rows([*([before] if before else []), after]))
    return Section(
        "reward",
        "Reward gap",
        "Does the reward gap mean what it says?",
        [
            Text(lead if before else f"{lead} {BY_CONSTRUCTION}", "lead"),
            Figures([plot], beside=table),
            _reliability_table(bins_before, after.error.bins, rows_name="pairs"),
        ],
    )


def _token_section(measures: Measures, *, n_tokens: int) -> Section:
    before, after = measures.reference_error.bins, measures.policy_error.bins
    plot = Plot(
        plots.token_reliability_plot(before, after),
        "Reliability",
        "how often the most likely token came, against its probability; a dot grows with its tokens",
    )
    return Section(
        "tokens",
        "Next token",
        "Is the model as sure of the next token as it is right?",
        [
            Text(
                f"{number(n_tokens)} tokens of held-out chosen responses, under the unaligned and the aligned model. "
                "A negative change of likelihood, entropy or Brier score is a fall.",
                "lead",
            ),
            Figures([plot]),
            Table(["", "before", "after", "change, paired"], token_rows(measures)),
            _reliability_table(before, after, rows_name="tokens"),
        ],
    )


def _drift_section(drift: Drift) -> Section:
    lead = (
        "Aligned against unaligned model along held-out responses, in nats a token. The divergence is exact: over the "
        "whole vocabulary before every token of the chosen responses."
    )
    table = Table(["", "nats a token"], drift_rows(drift))
    return Section("drift", "Drift", "How far did it go?", [Text(lead, "lead"), table])


def _seed_section(seeds: Sequence[int], measures: Sequence[Measures]) -> Section:
    gaps = [seed.gaps_after for seed in measures]
    rows = [
        ["pairs it gets right, %", *(estimate_text(gap.accuracy.scaled(100)) for gap in gaps)],
        ["calibration error, σ(gap)", *(number(gap.error.ece, digits=3) for gap in gaps)],
        ["Brier score, σ(gap)", *(estimate_text(gap.brier, digits=3) for gap in gaps)],
        ["perplexity after", *(estimate_text(seed.policy.perplexity, digits=3) for seed in measures)],
        ["calibration error, next token", *(number(seed.policy_error.ece, digits=4) for seed in measures)],
        ["KL, nats a token", *(estimate_text(seed.drift.divergence, digits=5) for seed in measures)],
    ]
    lead = "The intervals of one seed speak of other pairs, not of other seeds; those above speak of both."
    table = Table(["", *(f"seed {seed}" for seed in seeds)], rows)
    return Section("seeds", "Seeds", "Seed by seed", [Text(lead, "lead"), table])


def _reliability_table(before: Sequence[Bin], after: Sequence[Bin], *, rows_name: str) -> Table:
    rows = [
        [
            f"{side}, {number(b.low, digits=2)} to {number(b.high, digits=2)}",
            number(b.count),
            number(b.confidence, digits=3),
            number(b.accuracy, digits=3),
        ]
        for side, bins in (("before", before), ("after", after))
        for b in bins
    ]
    return Table(["confidence", rows_name, "mean confidence", "share right"], rows, title="reliability")
