"""What a person's choices add up to, in words: for the terminal, and for the page at its end. Pure."""

from __future__ import annotations

from typing import Any

from trimtab.analysis.comparison import NOT_DISTINGUISHABLE
from trimtab.analysis.intervals import Interval, finite
from trimtab.studies.arena.numbers import NOTHING_JUDGED, ArenaNumbers


def lines(numbers: ArenaNumbers) -> list[str]:
    """For a terminal."""
    option = " with --allow-missing" if numbers.n_skipped or numbers.n_not_reached else ""
    file = [f"verdicts: {numbers.file}   (trimtab winrate reads it{option})"] if numbers.file else []
    headline = f"{numbers.verdict}: {_rate(numbers)}" if numbers.has_rate else numbers.verdict
    return [headline, *_details(numbers), *file]


def page(numbers: ArenaNumbers) -> dict[str, Any]:
    """What the page shows once nothing can be chosen any more, JSON-able."""
    shares = (
        ("first", numbers.a, numbers.rate.n_losses),
        ("tie", "tie", numbers.n_ties + numbers.n_identical),
        ("bad", "both bad", numbers.n_both_bad),
        ("second", numbers.b, numbers.rate.n_wins),
    )
    verdict = numbers.verdict
    text = [f"{_rate(numbers)}.", *(f"{_capital(line)}." for line in _details(numbers))] if numbers.has_rate else []
    return {
        "headline": _capital(verdict) if verdict.startswith((NOT_DISTINGUISHABLE, NOTHING_JUDGED)) else verdict,
        "shares": [{"kind": kind, "name": name, "n": n} for kind, name, n in shares],
        "lines": text,
    }


def _details(numbers: ArenaNumbers) -> list[str]:
    """The sentences under the headline."""
    if not numbers.has_rate:
        return []
    ties = _counts(
        (numbers.n_ties, "ties"), (numbers.n_both_bad, "both bad"), (numbers.n_identical, "identical answers")
    )
    p_value = "< 0.001" if numbers.p_value < 0.001 else f"= {numbers.p_value:.3f}"
    test = "" if finite(numbers.p_value) is None else f"score test p {p_value}; "
    text = [
        f"{numbers.rate.n_wins} to {numbers.rate.n_losses} for {numbers.b}{', ' if ties else ''}{ties}; "
        f"{test}judged by {numbers.judge}"
    ]
    if numbers.n_skipped or numbers.n_not_reached:
        text.append(f"without a verdict: {numbers.n_skipped} skipped, {numbers.n_not_reached} not reached")
    if numbers.left_share is not None and numbers.left_ci95 is not None:
        text.append(_sides(numbers.left_share, numbers.left_ci95, n=numbers.n_decided))
    if numbers.median_seconds is not None:
        text.append(f"median time for a choice: {numbers.median_seconds:.1f}\u00a0s")
    return text


def _counts(*counts: tuple[int, str]) -> str:
    return ", ".join(f"{n} {name}" for n, name in counts if n)


def _rate(numbers: ArenaNumbers) -> str:
    low, high = numbers.rate.ci95
    interval = "" if finite(low) is None else f" (95\u00a0% CI {low:.1f} to {high:.1f})"
    return f"{numbers.b} was preferred in {numbers.rate.win_rate:.1f}\u00a0%{interval} against {numbers.a}"


def _sides(left_share: float, ci95: Interval, *, n: int) -> str:
    low, high = ci95
    lean = "" if low <= 50 <= high else f", a leaning to the {'left' if low > 50 else 'right'}"
    fair = ": a coin dealt the sides, so it blurs the comparison and favours neither" if lean else ""
    return (
        f"the left answer was chosen {left_share:.0f}\u00a0% of the {n} times that a side was "
        f"(95\u00a0% CI {low:.0f} to {high:.0f}{lean}){fair}"
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
