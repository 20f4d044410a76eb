"""The sentences about the regime, symptoms, milestones and held-out pairs."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.analysis.selection import MIN_PAIRS
from trimtab.records import Estimate
from trimtab.reporting.numbers.training import (
    HeldoutNumbers,
    ImitationNumbers,
    MilestoneNumbers,
    RegimeNumbers,
    TrainingNumbers,
)
from trimtab.reporting.sections import Sentence, Tone, sentence
from trimtab.reporting.text import interval, number


def regime(training: TrainingNumbers | None) -> list[Sentence]:
    """The regime in one sentence: of the seed, or of all seeds where they agree, else one a seed."""
    if training is None:
        return [sentence("No training step is recorded in this run folder, so no regime can be named.", "warn")]
    regimes = [entry.regime for entry in training.seeds]
    names = {regime.name for regime in regimes}
    tone: Tone = "warn" if names & {None, "starved"} else "plain"
    if len(regimes) == 1:
        return [sentence(regimes[0].sentence, tone)]
    if len(names) == 1 and regimes[0].share_at_end is not None:
        return [sentence(_in_all_seeds(regimes, has_dead_zone=training.has_dead_zone), tone)]
    return [sentence(f"Seed {entry.seed}. {entry.regime.sentence}", tone) for entry in training.seeds]


def _in_all_seeds(regimes: Sequence[RegimeNumbers], *, has_dead_zone: bool) -> str:
    sides = {
        "both sides": [regime.share_at_end for regime in regimes],
        "chosen": [regime.chosen_at_end for regime in regimes],
        "rejected": [regime.rejected_at_end for regime in regimes],
    }
    ranges = ", ".join(f"{side} {_range(shares)}" for side, shares in sides.items())
    quantity = "share of responses still active" if has_dead_zone else "share of the first pull left"
    return f"{str(regimes[0].name).capitalize()} in all {len(regimes)} seeds: {quantity} at the end, {ranges}."


def _range(shares: Sequence[float | None]) -> str:
    values = [share for share in shares if share is not None]
    low, high = (number(100 * end(values), digits=0) for end in (min, max))
    return f"{low} %" if low == high else f"{low} to {high} %"


def outlook(training: TrainingNumbers | None) -> list[Sentence]:
    """Where what the first steps said did not come."""
    entries = () if training is None else training.seeds
    sentences = []
    for entry in entries:
        early = None if entry.outlooks is None else entry.outlooks.early
        if early is None or not early.is_decided or entry.regime.name in (None, early.regime):
            continue
        sentences.append(
            sentence(
                (f"Seed {entry.seed}. " if len(entries) > 1 else "")
                + f"After step {number(early.step)} the run seemed to be heading for the {early.regime} regime; it did "
                f"not go there."
            )
        )
    return sentences


def symptoms(training: TrainingNumbers | None) -> list[Sentence]:
    """What went wrong in training without a number that is not finite, each kind once a seed."""
    entries = () if training is None else training.seeds
    return [
        sentence(
            (f"Seed {entry.seed}. " if len(entries) > 1 else "")
            + f"**{symptom.observation}.** Likely cause: {symptom.cause}. {symptom.remedy}.",
            "warn",
        )
        for entry in entries
        for symptom in entry.symptoms
    ]


def milestones(numbers: MilestoneNumbers | None) -> list[Sentence]:
    """Which weights these are, where they are not simply the last step's; what was lost, and what the rule misses."""
    if numbers is None:
        return []
    several = len(numbers.seeds) > 1
    selections = [(f"Seed {entry.seed}: " if several else "", entry.selection) for entry in numbers.seeds]
    ends = [
        sentence(f"{seed}{selection.early_end if several else _capital(selection.early_end)}.")
        for seed, selection in selections
        if selection.early_end
    ]
    picks = [
        sentence(
            f"{seed or 'The '}{'the ' if several else ''}model is that of **step {number(selection.picked)} of "
            f"{number(selection.last)}**: {selection.why}."
        )
        for seed, selection in selections
        if selection.picked != selection.last
    ]
    losses = [
        sentence(
            "Milestones from before the run was resumed were gone or damaged and could not be picked: "
            f"{', '.join(number(step) for step in selection.lost)}.",
            "warn",
        )
        for _, selection in selections
        if selection.lost
    ]
    warnings = [
        sentence(f"{seed}{selection.warning if several else _capital(selection.warning)}.", "warn")
        for seed, selection in selections
        if selection.warning
    ]
    return ends + picks + losses + warnings


def _capital(text: str) -> str:
    return ". ".join(f"{part[0].upper()}{part[1:]}" for part in text.split(". "))


def heldout(numbers: HeldoutNumbers | None) -> list[Sentence]:
    """How many held-out pairs the model's reward ranks as their labels do."""
    if numbers is None or numbers.after.accuracy.value is None:
        return []
    if numbers.imitation is not None:
        return [_imitation(numbers.imitation)]
    if numbers.after.auc is not None:
        return [_told_apart(numbers.after.auc)]
    after, accuracy = numbers.after, numbers.after.accuracy.scaled(100)
    pairs = f"{number(accuracy.n)} preference pair{'' if accuracy.n == 1 else 's'} kept out of training"
    if after.ranks_nothing:
        return [sentence(f"On {pairs} every reward gap is 0: the model's own reward ranks none of them.", "warn")]
    if accuracy.n < MIN_PAIRS:
        return [sentence(f"{pairs} {'is' if accuracy.n == 1 else 'are'} too few to say how many are ranked right.")]
    subject = f"{accuracy.n_seeds} models' own rewards rank" if accuracy.n_seeds > 1 else "the model's own reward ranks"
    ties = f", {number(after.n_ties)} ties counted as half" if after.n_ties else ""
    before = numbers.before
    if before is None or before.ranks_nothing:
        start = "50 % is chance"
    else:  # without a reference the reward is the log-probability itself, which ranks pairs from the first
        start = f"{number(before.accuracy.scaled(100).value)} % before training; 50 % is chance"
    return [
        sentence(
            f"On {pairs} {subject} **{number(accuracy.value)} %** as their labels do "
            f"(95 % CI {interval(accuracy.ci95)}{ties}; {start})."
        )
    ]


def _imitation(numbers: ImitationNumbers) -> Sentence:
    change = numbers.change
    rows = f"{number(change.n)} response{'' if change.n == 1 else 's'} kept out of training"
    return sentence(
        f"On {rows} the negative log-likelihood went from {number(numbers.before, digits=3)} to "
        f"**{number(numbers.after, digits=3)} nats a token** (change {number(change.value, digits=3)}, 95 % CI "
        f"{interval(change.ci95, digits=3)})."
    )


def _told_apart(auc: Estimate) -> Sentence:
    """Of unpaired rows."""
    rows = f"{number(auc.n)} response{'' if auc.n == 1 else 's'} kept out of training"
    if auc.value is None or auc.n < MIN_PAIRS:
        return sentence(f"{rows} {'is' if auc.n == 1 else 'are'} too few, or of one label: no telling them apart.")
    area = auc.scaled(100)
    return sentence(
        f"Of {rows} a good one has a higher reward than a bad one in **{number(area.value)} %** of draws (AUC; 95 % CI "
        f"{interval(area.ci95)}; 50 % is chance)."
    )
