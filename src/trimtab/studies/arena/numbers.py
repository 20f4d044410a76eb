"""What a person's choices add up to: numbers, words for the terminal, and what the page shows at the end. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from trimtab.analysis.comparison import MIN_COMMON, NOT_DISTINGUISHABLE
from trimtab.analysis.intervals import sign_test, wilson_interval
from trimtab.analysis.winrate import win_rate
from trimtab.records import Verdict
from trimtab.studies.arena import Outcome

NOTHING = "nothing was judged"


def result(outcomes: Sequence[Outcome], *, names: tuple[str, str], judge: str) -> dict[str, Any]:
    """Everything known. `win_rate` and `ci95` (percent) are of B over A; ties of any kind are half a win.

    `ties` were said to be ties, `both_bad` too but for a reason, `identical` answers were nobody's to judge. A skipped
    prompt is missing; one that was not reached is neither: the order is random. `left_share` (percent) is over the
    `n_decided` choices of a side.
    """
    kept = [one for one in outcomes if one.preference is not None]
    rate = win_rate([one.preference for one in kept])
    choices = [one.choice for one in kept if one.choice is not None]
    said = [choice.said for choice in choices]
    decided = said.count("left") + said.count("right")
    low, high = wilson_interval(said.count("left"), n=decided)
    rated = rate.to_json()
    return {
        "a": names[0],
        "b": names[1],
        "judge": judge,
        "verdict": _verdict(rate.ci95, n=len(kept), names=names),
        "win_rate": rated["win_rate"],
        "ci95": rated["ci95"],
        "p_value": sign_test(rate.n_losses, rate.n_wins),
        "n_judged": len(choices),
        "wins_a": rate.n_losses,
        "wins_b": rate.n_wins,
        "ties": said.count("tie"),
        "both_bad": said.count("both bad"),
        "identical": sum(one.match.identical for one in kept),
        "skipped": sum(one.skipped and one.preference is None for one in outcomes),
        "not_reached": sum(not one.reached for one in outcomes),
        "n_decided": decided,
        "left_share": 100 * said.count("left") / decided if decided else None,
        "left_ci95": [100 * low, 100 * high] if decided else None,
        "median_seconds": median(choice.seconds for choice in choices) if choices else None,
    }


def rows(outcomes: Sequence[Outcome], *, names: tuple[str, str], judge: str) -> list[dict[str, Any]]:
    """AlpacaEval's annotation form, output_1 = A, output_2 = B, with what was said beside it.

    Prompts that were not reached are left out; a skipped one has the preference null, which counts as missing.
    """
    written = []
    for one in outcomes:
        if one.preference is None and not one.skipped:
            continue
        match, choice = one.match, one.choice
        verdict = Verdict(
            prompt_id=match.prompt_id,
            instruction="\n\n".join(match.asked),
            output_1="\n\n".join(match.first),
            output_2="\n\n".join(match.second),
            generator_1=names[0],
            generator_2=names[1],
            annotator=judge,
            preference=one.preference,
            dataset=match.dataset,
        )
        written.append(
            verdict.to_json()
            | {
                "choice": choice.said if choice else "identical" if match.identical else "skipped",
                "shown_left": None if choice is None else "output_1" if choice.first_on_left(match) else "output_2",
                "seconds": None if choice is None else round(choice.seconds, 3),
            }
        )
    return written


def headline(told: Mapping[str, Any]) -> str:
    """The verdict and the rate that it stands on, in one line."""
    return told["verdict"] if told["win_rate"] is None else f"{told['verdict']}: {_rate(told)}"


def details(told: Mapping[str, Any]) -> list[str]:
    """The sentences under the headline."""
    ties = ", ".join(
        f"{told[name]} {words}"
        for name, words in (("ties", "ties"), ("both_bad", "both bad"), ("identical", "identical answers"))
        if told[name]
    )
    if told["win_rate"] is None:
        return []
    lines = [
        f"{told['wins_b']} to {told['wins_a']} for {told['b']}{', ' if ties else ''}{ties}; "
        f"sign test p {'< 0.001' if told['p_value'] < 0.001 else '= ' + format(told['p_value'], '.3f')}; "
        f"judged by {told['judge']}"
    ]
    left_out = [f"{told[name]} {words}" for name, words in (("skipped", "skipped"), ("not_reached", "not reached"))]
    if told["skipped"] or told["not_reached"]:
        lines.append(f"without a verdict: {', '.join(left_out)}")
    if told["n_decided"]:
        lines.append(_sides(told))
    if told["median_seconds"] is not None:
        lines.append(f"median time for a choice: {told['median_seconds']:.1f}\u00a0s")
    return lines


def page(told: Mapping[str, Any]) -> dict[str, Any]:
    """What the page shows once nothing can be chosen any more."""
    ties = told["ties"] + told["identical"]
    shares = (
        ("first", told["a"], told["wins_a"]),
        ("tie", "tie", ties),
        ("bad", "both bad", told["both_bad"]),
        ("second", told["b"], told["wins_b"]),
    )
    verdict = told["verdict"]
    return {
        "headline": _capital(verdict) if verdict.startswith((NOT_DISTINGUISHABLE, NOTHING)) else verdict,
        "shares": [{"kind": kind, "name": name, "n": n} for kind, name, n in shares],
        "lines": []
        if told["win_rate"] is None
        else [f"{_rate(told)}.", *(f"{_capital(one)}." for one in details(told))],
    }


def _rate(told: Mapping[str, Any]) -> str:
    low, high = told["ci95"]
    return (
        f"{told['b']} was preferred in {told['win_rate']:.1f}\u00a0% (95\u00a0% CI {low:.1f} to {high:.1f}) "
        f"against {told['a']}"
    )


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _sides(told: Mapping[str, Any]) -> str:
    low, high = told["left_ci95"]
    lean = "" if low <= 50 <= high else f", a leaning to the {'left' if low > 50 else 'right'}"
    fair = "" if not lean else ": a coin dealt the sides, so it blurs the comparison and favours neither"
    return (
        f"the left answer was chosen {told['left_share']:.0f}\u00a0% of the {told['n_decided']} times that a side was "
        f"(95\u00a0% CI {low:.0f} to {high:.0f}{lean}){fair}"
    )


def _verdict(ci95: tuple[float, float], *, n: int, names: tuple[str, str]) -> str:
    """As `comparison.compare` words it, on the interval that is shown."""
    if n == 0:
        return NOTHING
    if n < MIN_COMMON:
        return f"{NOT_DISTINGUISHABLE} (only {n} prompts)"
    if ci95[0] > 50:
        return f"{names[1]} is better"
    return f"{names[0]} is better" if ci95[1] < 50 else NOT_DISTINGUISHABLE
