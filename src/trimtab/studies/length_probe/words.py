"""What `trimtab probe` says: the verdicts in words. No number is made here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from trimtab.analysis.length_probe import MIN_DIFFERING
from trimtab.analysis.rank_correlation import Correlation
from trimtab.reporting.sections import Sentence, sentence
from trimtab.reporting.text import interval, number, with_sign
from trimtab.studies.length_probe.numbers import Contrast, RunNumbers, Side
from trimtab.studies.length_probe.run_difference import RunDifference

CONTRASTS: Mapping[Contrast, str] = {
    "length_difference": "nothing held equal",
    "at_equal_quality": "at equal true quality of both responses",
    "at_equal_reference": "at equal difference of reference log-probability",
    "at_equal_length": "at equal own length",
    "at_equal_quality_and_length": "at equal true quality and own length",
    "own_length": "own length, not the difference",
    "pull": "pull at the last visit, not the time",
}
SIDE_NAMES: Mapping[Side, str] = {
    "responses": "both responses",
    "chosen": "chosen",
    "rejected": "rejected",
    "pair": "pair (while either is)",
}


def headline(runs: Sequence[RunNumbers], differences: Sequence[RunDifference]) -> list[Sentence]:
    """The answers: one verdict a run, what of it is mechanics, and how the runs differ."""

    def label(run: RunNumbers, verdict: Sentence) -> Sentence:
        return replace(verdict, text=f"{run.label}: {verdict.text}") if len(runs) > 1 else verdict

    sentences = [label(run, _verdict(run)) for run in runs]
    for run in runs:
        notes = (_early_stop(run), _mechanics(run), _pull(run), _unknown_truth(run))
        sentences += [label(run, note) for note in notes if note is not None]
    return sentences + [_difference(difference) for difference in differences]


def _verdict(run: RunNumbers) -> Sentence:
    side = run.sides["responses"]
    order, by = side.verdict.order, side.verdict.by
    share = f"{number(side.share_left.scaled(100).value)} % of responses left training before the end."
    if order == "too few differ":
        return sentence(f"{_no_order(side.n_apart)} {share}", "warn")
    correlation = side.correlations[by]
    verdict = f"Pairs with the longer chosen response leave training **{order}**"
    power = ""
    if order == "not distinguishable":
        verdict = "Whether pairs with the longer chosen response leave first or last is **not distinguishable**"
        if correlation.detectable is not None:
            size = number(correlation.detectable, digits=2)
            power = f" Four in five such probes would detect a correlation of ±{size}."
    return sentence(
        f"{verdict}: the rank correlation of length difference and time to saturation is {_rho(correlation)}, "
        f"{CONTRASTS[by]}. {share}{power}",
        "even",
    )


def _no_order(n_apart: int) -> str:
    if n_apart >= MIN_DIFFERING:
        return "**Which pairs leave training first cannot be said**: the rank correlation has no interval."
    pairs = f"only {n_apart} pairs have" if n_apart > 1 else "only 1 pair has" if n_apart else "no pair has"
    return (
        f"**Too few responses leave training** to say which leave first: {pairs} a time to saturation other than the "
        f"most common one, and at least {MIN_DIFFERING} are needed."
    )


def _early_stop(run: RunNumbers) -> Sentence | None:
    n_steps, planned_steps = min(run.run.n_steps), run.run.planned_steps
    if n_steps >= planned_steps:
        return None
    return sentence(f"Training stopped after {n_steps} of {planned_steps} steps; that step counts as the end.", "warn")


def _mechanics(run: RunNumbers) -> Sentence | None:
    """Sums over tokens let a longer response go further: what of the order is left at equal own length."""
    chosen, rejected = (run.sides[side].share_left.value or 0.0 for side in ("chosen", "rejected"))
    subject = "Both responses leave together, and their own length is the pair's total."
    name: Side = "responses"  # a loss of the pair's gap lets go of both at once
    if chosen != rejected:
        name = "chosen" if chosen > rejected else "rejected"
        subject = f"The {name} response leaves most often ({number(100 * max(chosen, rejected))} %)."
    plain: Contrast = "at_equal_quality" if run.has_truth else "length_difference"
    at_equal_length: Contrast = "at_equal_quality_and_length" if run.has_truth else "at_equal_length"
    correlations = run.sides[name].correlations
    if at_equal_length not in correlations or run.sides["responses"].verdict.order not in ("first", "last"):
        return None
    match correlations[at_equal_length].estimate.direction(0.0):
        case "not distinguishable":
            verdict = (
                "**not distinguishable** from no order, so the response's own length may be at work, and not which of "
                "the two is the longer one"
            )
        case "above" | "below":
            verdict = "an order remains, so it is **not the response's own length alone**"
        case _:
            verdict = "there is no interval"
    return sentence(
        f"{subject} Time to saturation correlates with own length at {_rho(correlations['own_length'])} and with the "
        f"length difference at {_rho(correlations[plain])}; at equal own length the latter is "
        f"{_rho(correlations[at_equal_length])}: {verdict}."
    )


def _pull(run: RunNumbers) -> Sentence | None:
    """Losses without a dead zone may keep every response, and yet pull less at some than at others."""
    if run.run.objective.has_dead_zone:
        return None
    correlation = run.sides["responses"].correlations["pull"]
    rho = f"rank correlation {_rho(correlation)}{', at equal true quality' if run.has_truth else ''}"
    match correlation.estimate.direction(0.0):
        case "unknown":
            return sentence(f"Whether the pull at the last visit depends on length cannot be said: {rho}.")
        case "not distinguishable":
            verdict = "**not distinguishable** from that on others"
        case direction:
            verdict = f"**{'weaker' if direction == 'below' else 'stronger'}** than on others"
    return sentence(f"At the last visit the pull on pairs with the longer chosen response is {verdict}: {rho}.")


def _unknown_truth(run: RunNumbers) -> Sentence | None:
    if run.has_truth:
        return None
    text = "The true quality of these responses is not known, so it could not be held equal."
    correlations = run.sides["responses"].correlations
    if "at_equal_reference" in correlations:
        text += (
            " At equal difference of the reference's log-probabilities the correlation is "
            f"{_rho(correlations['at_equal_reference'])}; that does not measure quality."
        )
    elif run.run.reference_PS is None:
        text += " The reference's log-probabilities are not available either."
    return sentence(text, "warn")


def _difference(difference: RunDifference) -> Sentence:
    first = difference.first
    labels = f"{first.label} against {difference.second.label}"
    if difference.why_not is not None:
        return sentence(f"{labels}: not compared pair by pair, because {difference.why_not}.", "warn")
    by: Contrast = "at_equal_quality" if first.has_truth else "length_difference"
    correlations = difference.sides["responses"].correlations
    verdicts = [_change("time to saturation", correlations.get(by)), _change("pull", correlations.get("pull"))]
    return sentence(f"{labels}, on the same pairs: the correlation {'; that '.join(verdicts)}.", "even")


def _change(name: str, change: Correlation | None) -> str:
    if change is None or change.estimate.ci95 is None:
        return f"of {name} cannot be compared"
    is_even = change.estimate.direction(0.0) == "not distinguishable"
    return f"of {name} differs by {_rho(change)}{', **not distinguishable** from 0' if is_even else ''}"


def _rho(correlation: Correlation) -> str:
    estimate = correlation.estimate
    return f"{with_sign(estimate.value, digits=2)} ({interval(estimate.ci95, digits=2)})"
