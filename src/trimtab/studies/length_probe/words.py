"""What `trimtab probe` says: the verdicts in words, and the terminal's table. No number is made here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.analysis.length_probe import LEAST_ROWS
from trimtab.reporting.estimates import direction, scaled
from trimtab.reporting.sentences import Sentence, sentence, signed
from trimtab.reporting.text import interval, number, shown, visible

Numbers = Mapping[str, Any]

HELD = {
    "length_difference": "nothing held equal",
    "at_equal_quality": "at equal true quality of both responses",
    "at_equal_reference": "at equal difference of reference log-probability",
    "at_equal_length": "at equal own length",
    "at_equal_quality_and_length": "at equal true quality and own length",
    "own_length": "own length, not the difference",
    "pull": "strength left at the last visit, not the time",
}
SIDES = {
    "responses": "both responses",
    "chosen": "chosen",
    "rejected": "rejected",
    "pair": "pair (while either is)",
}


def headline(told: Numbers) -> list[Sentence]:
    """The answers: one verdict a run, what of it is mechanics, and how the runs differ."""
    runs = told["runs"]
    several = len(runs) > 1
    found = [_verdict(run, named=several) for run in runs]
    for run in runs:
        found += _stopped(run, named=several)
        found += _mechanics(run, named=several)
        found += _fading(run, named=several)
        if not run["truth"]:
            found.append(_without_truth(run, named=several))
    return [*found, *(_compared(one, runs) for one in told["compared"])]


def _verdict(run: Numbers, *, named: bool) -> Sentence:
    side = run["sides"]["responses"]
    verdict, left = side["verdict"], scaled(side["share_left"], 100)
    begin = _name(run, named)
    gone = f"{number(left['value'])} % of responses left before the end."
    if verdict["order"] == "too few differ":
        return sentence(
            f"{begin}**Too few responses leave training** to say which leave first: the times of {side['n_apart']} "
            f"differ from the commonest one, {LEAST_ROWS} are asked for. {gone}",
            "warn",
        )
    rho = side["correlations"][verdict["by"]]
    said = {
        "first": "leave training **first**",
        "last": "leave training **last**",
        "not distinguishable": "leave training neither first nor last: **not distinguishable**",
    }[verdict["order"]]
    power = ""
    if verdict["order"] == "not distinguishable" and rho["detectable"] is not None:
        power = f" Four in five such probes would have seen a correlation of ±{number(rho['detectable'], digits=2)}."
    return sentence(
        f"{begin}Pairs whose chosen response is the longer one {said}: rank correlation of length difference and time "
        f"to saturation {_rho(rho)}, {HELD[verdict['by']]}. {gone}{power}",
        "even",
    )


def _stopped(run: Numbers, *, named: bool) -> list[Sentence]:
    done, planned = min(run["steps"]), run["planned_steps"]
    if done >= planned:
        return []
    return [
        sentence(f"{_name(run, named)}Training stopped after {done} of {planned} steps; its end is that step.", "warn")
    ]


def _mechanics(run: Numbers, *, named: bool) -> list[Sentence]:
    """Sums over tokens let a longer response go further: what of the order is left at equal own length."""
    shares = {side: run["sides"][side]["share_left"]["value"] or 0.0 for side in ("chosen", "rejected")}
    together = shares["chosen"] == shares["rejected"]  # a loss of the pair's gap lets go of both at once
    name = "responses" if together else max(shares, key=lambda side: shares[side])
    told = run["sides"][name]["correlations"]
    held = "at_equal_quality_and_length" if run["truth"] else "at_equal_length"
    if held not in told or run["sides"]["responses"]["verdict"]["order"] not in ("first", "last"):
        return []
    before, after = told["at_equal_quality" if run["truth"] else "length_difference"], told[held]
    match direction(after, 0.0):
        case "not distinguishable":
            said = (
                "with own length held equal too, **no order is distinguishable from none**: what there is to see may "
                "be the response's own length at work, and not which of the two is longer"
            )
        case "above" | "below":
            said = "an order remains with own length held equal too: it is **not the response's own length alone**"
        case _:
            said = "with own length held equal too there is no interval"
    who = f"The {name} response leaves most ({number(_percent(run, name))} %)"
    if together:
        who = "Both responses leave together; their own length is the pair's total"
    return [
        sentence(
            f"{_name(run, named)}{who}. Time to saturation and own length: {_rho(told['own_length'])}. Time and length "
            f"difference: {_rho(before)}; {said} ({_rho(after)}).",
            "plain",
        )
    ]


def _fading(run: Numbers, *, named: bool) -> list[Sentence]:
    """Losses without a dead zone may keep every response, and yet pull less at some than at others."""
    if run["dead_zone"]:
        return []
    rho = run["sides"]["responses"]["correlations"]["pull"]
    said = {
        "below": "pull **less** at the last visit",
        "above": "pull **more** at the last visit",
        "not distinguishable": "pull as hard as others at the last visit, as far as can be **distinguished**",
    }.get(direction(rho, 0.0), "pull all alike")
    held = ", at equal true quality" if run["truth"] else ""
    return [sentence(f"{_name(run, named)}Long-favoured pairs {said}: {_rho(rho)}{held}.", "plain")]


def _without_truth(run: Numbers, *, named: bool) -> Sentence:
    told = run["sides"]["responses"]["correlations"]
    begin = f"{_name(run, named)}The true quality of these responses is not known, so nothing holds it equal."
    if "at_equal_reference" in told:
        return sentence(
            f"{begin} At equal difference of the reference's log-probabilities the correlation is "
            f"{_rho(told['at_equal_reference'])}; that is no measure of quality.",
            "warn",
        )
    return sentence(f"{begin} The reference's log-probabilities are not at hand either.", "warn")


def _compared(one: Numbers, runs: Sequence[Numbers]) -> Sentence:
    labels = {run["folder"]: run["label"] for run in runs}
    pair = f"{labels[one['first']]} against {labels[one['other']]}"
    if one["why_not"] is not None:
        return sentence(f"{pair}: not compared pair by pair, because {one['why_not']}.", "warn")
    truth = next(run["truth"] for run in runs if run["folder"] == one["first"])
    told = one["sides"]["responses"]["correlations"]
    found = []
    for what, name in (("time to saturation", "at_equal_quality" if truth else "length_difference"), ("pull", "pull")):
        rho = told.get(name)
        if rho is None or rho["ci95"] is None:
            found.append(f"of {what} cannot be compared")
            continue
        same = direction(rho, 0.0) == "not distinguishable"
        found.append(f"of {what} differs by {_rho(rho)}{', **not distinguishable** from 0' if same else ''}")
    return sentence(f"{pair}, on the same pairs: the correlation {'; that '.join(found)}.", "even")


def _name(run: Numbers, named: bool) -> str:
    return f"{run['label']}: " if named else ""


def _percent(run: Numbers, side: str) -> float | None:
    value: float | None = scaled(run["sides"][side]["share_left"], 100)["value"]
    return value


def _rho(told: Numbers) -> str:
    return f"{signed(told['value'], digits=2)} ({interval(told['ci95'], digits=2)})"


# --- the terminal ----------------------------------------------------------------------------------------------------


def lines(told: Numbers) -> list[str]:
    """Verdicts and one table a run."""
    said = [one["text"].replace("**", "") for one in told["headline"]]
    for run in told["runs"]:
        said += ["", f"{run['label']}: active, % at a visit, by length difference in tokens (chosen less rejected)"]
        said += _laid(_rows(run))
    return [*said, "", f"plots and every number: {told['runs'][0]['folder']}/probe.html"]


def _rows(run: Numbers) -> list[list[str]]:
    last = run["n_visits"] - 1
    visits = sorted({0, last // 2, last})  # the page has them all
    head = ["longer by", "pairs", *(f"{side} {v + 1}" for side in ("chosen", "rejected") for v in visits)]
    rows = [[*head, "mean visits: chosen", "rejected"]]
    for at, one in enumerate(run["bins"]):
        shares = [
            number(scaled(run["sides"][side]["active"][at][v], 100)["value"], digits=0)
            for side in ("chosen", "rejected")
            for v in visits
        ]
        times = [shown(run["sides"][side]["visits"][at]["mean"], digits=2) for side in ("chosen", "rejected")]
        rows.append([one["label"], number(one["n"]), *shares, *times])
    return rows


def _laid(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join(f"{visible(cell):>{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
