"""The page of `trimtab probe`: plots first, the tables behind them. No number is made here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.analysis import probe_plots
from trimtab.analysis.probe_plots import Dot
from trimtab.reporting.estimates import scaled
from trimtab.reporting.text import MISSING, number, shown
from trimtab.studies.length_probe.words import HELD, SIDES
from trimtab.version import __version__

Numbers = Mapping[str, Any]

_NOTES = (
    "A response is saturated at a visit when {leaves}. It has left from the first visit after which it pulls no more; "
    "a response that still pulls at its last visit never left, and counts as later than all that did.",
    "Time to saturation is counted in visits, one an epoch: 0 when it never pulled, {visits} when it never left. Its "
    "mean is therefore a restricted one; the order within an epoch is drawn at random and is left out.",
    "A negative correlation says that the longer, or the long-favoured, leave earlier. All are rank correlations; what "
    "is held equal enters by its ranks, their squares and products, and is taken out of both by least squares.",
    "Log-ratios are sums over tokens: a response's own length decides how far it has to go and how far it can go, "
    "whatever the other one is. “Own length” tells that from the effect of being the longer one. For both responses "
    "together, and for the pair, it is their total.",
    "True quality is the oracle's, blind to length; it is known in the embedded world alone. The reference's "
    "log-probability is no measure of quality.",
    "Intervals treat pairs as the sample (and seeds, where there are several); those of correlations draw whole "
    "prompts with all of their pairs.",
)
_SIDES = ("responses", "chosen", "rejected", "pair")


def page(told: Numbers) -> dict[str, Any]:
    """Everything that the template prints."""
    runs = told["runs"]
    first = runs[0]
    sections = []
    for at, run in enumerate(runs):
        sections += _run_sections(run, at=at, several=len(runs) > 1)
    sections += [_compared_section(one, runs, at) for at, one in enumerate(told["compared"])]
    objectives = ", ".join(dict.fromkeys(run["objective"]["name"] for run in runs))
    leaves = "; ".join(dict.fromkeys(run["leaves"] for run in runs))
    visits = ", ".join(dict.fromkeys(str(run["n_visits"]) for run in runs))
    return {
        "title": "Do long-favoured pairs leave training first?",
        "subject": [
            ("objective", objectives),
            ("data", ", ".join(dict.fromkeys(run["data"] for run in runs))),
            ("pairs", number(first["n_pairs"])),
            ("visits to each", visits),
            ("seeds" if len(first["seeds"]) > 1 else "seed", ", ".join(map(str, first["seeds"]))),
        ],
        "headline": told["headline"],
        "sections": sections,
        "notes": [note.format(leaves=leaves, visits=visits) for note in _NOTES] + _left_out(runs),
        "command": told["command"],
        "trimtab": __version__,
    }


def _left_out(runs: Sequence[Numbers]) -> list[str]:
    said = []
    for run in runs:
        if run["n_left_out"]:
            said.append(f"{run['label']}: {number(run['n_left_out'])} pairs had fewer visits and are left out.")
        if not run["reference"]:
            said.append(f"{run['label']}: the reference's log-probabilities are not in the cache any more.")
    return said


def _run_sections(run: Numbers, *, at: int, several: bool) -> list[dict[str, Any]]:
    sections = [_leaving(run), _times(run), _own_length(run), _correlations(run), *_answers(run)]
    for section in sections:
        section["anchor"] = f"{section['anchor']}-{at}"
        if several:
            section["title"] = f"{run['label']}: {section['title'][0].lower()}{section['title'][1:]}"
            section["name"] = f"{at + 1}. {section['name']}"
    return sections


def _leaving(run: Numbers) -> dict[str, Any]:
    labels = _labels(run["bins"])
    plots = []
    for side in _SIDES:
        told = run["sides"][side]["active_by_step"]
        title = f"Active: {SIDES[side]}"
        svg = probe_plots.curves_plot(told["step"], told["share"], labels, title=f"{title}, by length difference")
        plots.append({"title": title, "note": f"{_share_left(run, side)} left before the end", "svg": svg})
    return {
        "anchor": "leaving",
        "name": "Who leaves when",
        "title": "Who leaves training when?",
        "lead": "Share still active over training, by len(chosen) − len(rejected) in tokens: from the shortest "
        "(orange) to the longest chosen response (green).",
        "plots": plots,
        "tables": [
            _table(f"share active at each visit, %, {SIDES[side]}", *_active_rows(run, side)) for side in _SIDES
        ],
    }


def _active_rows(run: Numbers, side: str) -> tuple[list[str], list[list[str]]]:
    rows = [
        [one["label"], number(one["n"]), *(shown(scaled(value, 100)) for value in values)]
        for one, values in zip(run["bins"], run["sides"][side]["active"], strict=True)
    ]
    return ["longer by", "pairs", *(f"visit {v + 1}" for v in range(run["n_visits"]))], rows


def _times(run: Numbers) -> dict[str, Any]:
    labels = _labels(run["bins"])
    series = {role: [_dot(one["mean"]) for one in run["sides"][role]["visits"]] for role in ("chosen", "rejected")}
    svg = probe_plots.dots_plot(labels, series, unit="visits until it left, mean", title="Time to saturation by bin")
    rows = []
    for at, one in enumerate(run["bins"]):
        cells = []
        for side in ("chosen", "rejected", "pair"):
            told = run["sides"][side]["visits"][at]
            cells += [
                shown(told["mean"], digits=2),
                _median(told["median"]),
                shown(scaled(told["never"], 100), digits=0),
            ]
        rows.append([one["label"], *cells])
    heads = [f"{side}: {what}" for side in ("chosen", "rejected", "pair") for what in ("mean", "median", "never, %")]
    return {
        "anchor": "times",
        "name": "Time to saturation",
        "title": "How long until a response has left?",
        "lead": f"In visits; who never left counts as {run['n_visits']}. Green: chosen, orange: rejected.",
        "plots": [{"title": "Time to saturation", "note": "by length difference, tokens", "svg": svg}],
        "tables": [_table("mean, median, and share that never left", ["longer by", *heads], rows)],
    }


def _own_length(run: Numbers) -> dict[str, Any]:
    plots, tables = [], []
    for side in ("chosen", "rejected"):
        told = run["own_length"][side]
        series = {side: [_dot(one["mean"]) for one in told["rows"]]}
        svg = probe_plots.dots_plot(
            _labels(told["bins"]), series, unit="visits until it left, mean", title=f"Time by own length, {side}"
        )
        plots.append({"title": f"{side.capitalize()}", "note": "by its own length, tokens", "svg": svg})
        rows = [
            [bin_["label"], number(bin_["n"]), *_own_cells(one)]
            for bin_, one in zip(told["bins"], told["rows"], strict=True)
        ]
        head = [f"{side}, tokens", "n", "visits", "never left, %", "log-ratio at the end, nats", "nats a token"]
        tables.append(_table(f"{side} responses by their own length", head, rows))
    return {
        "anchor": "own",
        "name": "Own length",
        "title": "Is it the response's own length?",
        "lead": "With log-ratios summed over tokens a longer response has further to go, and further it can go. This "
        "is the mechanical effect, to be told from that of being the longer of the two.",
        "plots": plots,
        "tables": tables,
    }


def _own_cells(one: Numbers) -> list[str]:
    never = shown(scaled(one["never"], 100), digits=0)
    return [
        shown(one["mean"], digits=2),
        never,
        shown(one["log_ratio"], digits=2),
        shown(one["log_ratio_a_token"], digits=3),
    ]


def _correlations(run: Numbers) -> dict[str, Any]:
    names = [name for name in HELD if any(name in run["sides"][side]["correlations"] for side in _SIDES)]
    series = {
        role: [_dot(run["sides"][side]["correlations"].get(name)) for name in names]
        for side, role in (("responses", "before"), ("chosen", "chosen"), ("rejected", "rejected"))
    }
    plots = []
    if any(value is not None for dots in series.values() for value, _ in dots):
        svg = probe_plots.dots_plot(
            [_SHORT[name] for name in names], series, unit="rank correlation", title="Rank correlations", even=0.0
        )
        note = "grey: both responses, green: chosen, orange: rejected; left of 0 = the longer leave earlier"
        plots.append({"title": "Time to saturation and length", "note": note, "svg": svg})
    rows = []
    for name in names:
        cells = [run["sides"][side]["correlations"].get(name) for side in _SIDES]
        rows.append([HELD[name], *(MISSING if one is None else shown(one, digits=3) for one in cells)])
    seen = [run["sides"][side]["correlations"].get(run["sides"][side]["verdict"]["by"]) for side in _SIDES]
    sizes = [MISSING if one is None else f"±{number(one['detectable'], digits=3)}" for one in seen]
    sizes = [MISSING if one is None else f"±{number(one['detectable'], digits=3)}" for one in seen]
    rows.append(["could have been seen (power 80 %)", *sizes])
    return {
        "anchor": "order",
        "name": "Correlations",
        "title": "Is there an order?",
        "lead": "Rank correlation of the time to saturation with the length difference, at equal quality and length. "
        "Not measured where the times of fewer than ten responses differ from the commonest one.",
        "plots": plots,
        "tables": [_table("every correlation", ["", *(SIDES[side] for side in _SIDES)], rows)],
    }


_SHORT = {
    "length_difference": "difference",
    "at_equal_quality": "… equal quality",
    "at_equal_reference": "… equal reference",
    "at_equal_length": "… equal own length",
    "at_equal_quality_and_length": "… equal both",
    "own_length": "own length",
    "pull": "pull at the end",
}


def _answers(run: Numbers) -> list[dict[str, Any]]:
    told = run["answers"]
    if told is None:
        return []
    labels, judges = _labels(told["bins"]), told["judges"]
    roles = dict(zip(("after", "third", "rejected", "before", "chosen"), judges, strict=False))
    series = {role: [_dot(value) for value in judge["bins"]] for role, judge in roles.items()}
    svg = probe_plots.dots_plot(labels, series, unit="win rate, %", title="Win rate by length difference", even=50.0)
    rows = [
        [one["label"], number(one["n"]), shown(one["share"]), *(shown(judge["bins"][at]) for judge in judges)]
        for at, one in enumerate(told["bins"])
    ]
    rows.append(["all", "", "", *(shown(judge["win_rate"]) for judge in judges)])
    rows.append(
        ["rank correlation of score and difference", "", "", *(shown(j["correlation"], digits=3) for j in judges)]
    )
    rows.append(["without a verdict", "", "", *(number(judge["n_missing"]) for judge in judges)])
    colours = ", ".join(
        f"{colour}: {judge['label']}"
        for colour, judge in zip(("green", "violet", "orange", "grey"), judges, strict=False)
    )
    heads = ["longer by", "answers", "share, %", *(judge["label"] for judge in judges)]
    return [
        {
            "anchor": "answers",
            "name": "Answers",
            "title": "And in the answers?",
            "lead": f"Aligned answers to {told['benchmark']} against those of {told['baseline']}, by how much longer "
            f"they are in {told['unit']}. On average they are longer by {shown(told['change'])} {told['unit']}.",
            "plots": [{"title": "Win rate", "note": colours, "svg": svg}],
            "tables": [_table("win rate by length difference, %", heads, rows)],
        }
    ]


def _compared_section(one: Numbers, runs: Sequence[Numbers], at: int) -> dict[str, Any]:
    labels = {run["folder"]: run["label"] for run in runs}
    first, other = labels[one["first"]], labels[one["other"]]
    section: dict[str, Any] = {
        "anchor": f"against-{at}",
        "name": f"1 against {at + 2}",
        "title": f"{first} against {other}",
        "lead": f"Not compared pair by pair: {one['why_not']}.",
        "plots": [],
        "tables": [],
    }
    if one["why_not"] is not None:
        return section
    bins = runs[0]["bins"]
    series = {
        role: [_dot(scaled(value, 100)) for value in one["sides"][role]["active"]] for role in ("chosen", "rejected")
    }
    svg = probe_plots.dots_plot(
        _labels(bins), series, unit="points of share active", title="Difference of shares active", even=0.0
    )
    active = [
        [bin_["label"], *(shown(scaled(one["sides"][side]["active"][row], 100)) for side in _SIDES)]
        for row, bin_ in enumerate(bins)
    ]
    names = [name for name in HELD if any(name in one["sides"][side]["correlations"] for side in _SIDES)]
    rows = [
        [HELD[name], *(shown(one["sides"][side]["correlations"].get(name), digits=3) for side in _SIDES)]
        for name in names
    ]
    heads = [SIDES[side] for side in _SIDES]
    return section | {
        "lead": f"The first less the second, on the same pairs and prompts; shares at visit {one['visit']}.",
        "plots": [{"title": "Share active", "note": "difference by bin; green: chosen, orange: rejected", "svg": svg}],
        "tables": [
            _table("difference of shares active, points", ["longer by", *heads], active),
            _table("difference of correlations", ["", *heads], rows),
        ],
    }


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, Any]:
    return {"title": f"Table: {title}", "table": {"head": head, "rows": rows}}


def _labels(bins: Sequence[Numbers]) -> list[str]:
    return [str(one["label"]) for one in bins]


def _dot(told: Numbers | None) -> Dot:
    return (None, None) if told is None else (told["value"], told["ci95"])


def _median(value: float | None) -> str:
    return "more" if value is None else number(value, digits=0)


def _share_left(run: Numbers, side: str) -> str:
    return f"{number(scaled(run['sides'][side]['share_left'], 100)['value'])} %"
