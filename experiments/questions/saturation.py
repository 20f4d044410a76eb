"""(a) Do pairs whose chosen response is longer leave training first? From `trimtab probe` of the points.

The probe's own verdict and correlations are shown; nothing is measured here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.drawings import along
from experiments.figures_of import Figure, from_estimate
from experiments.section import Book, Drawing, Question, Section, Sweeps, Table
from experiments.sweeps_read import Point, Sweep
from experiments.words import counted, grouped, method, number, shown
from trimtab import store

SIDE = "responses"
PROBED: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "dead-zone": {"objective.margin": (1, 1000), "windtunnel.length_bias": (0, 0.5)},
    "dead-zone-sigmoid": {"objective.delta": (0, 0.4), "windtunnel.length_bias": (0, 0.5)},
    "real-ukp": {},
    "real-finegrained": {},
}
_ORDER = {
    "first": "long-favoured pairs leave first",
    "last": "long-favoured pairs leave last",
    "not distinguishable": "not distinguishable",
    "too few differ": "nothing to order (too few pairs left, or all did)",
}
_CORRELATIONS = {
    "length_difference": "plain",
    "at_equal_quality": "at equal quality",
    "at_equal_length": "at equal own length",
    "at_equal_quality_and_length": "at equal quality and own length",
}


def answer(sweeps: Sweeps, book: Book) -> Section:
    rows: list[list[str]] = []
    orders: dict[str, str] = {}
    panels: dict[str, dict[str, list[Figure]]] = {}
    ticks: dict[str, list[str]] = {}
    for name, wanted in PROBED.items():
        for point in sweeps[name].among(wanted) if name in sweeps else []:
            path = point.folder / "probe.json"
            if not path.is_file():
                continue
            probe = store.read_json(path)
            told = probe["runs"][0]
            label = _label(name, point, told)
            side = told["sides"][SIDE]
            figures = _correlations(side, book, sweeps[name], point, probe["command"])
            rows.append(_row(label, side, figures))
            orders[label] = _ORDER[side["verdict"]["order"]]
            if "dead zone" in told["leaves"] or name != "dead-zone":
                panels[label] = {"active": [_last(one) for one in side["active"]]}
                ticks[label] = [one["label"] for one in told["bins"]]
    if not rows:
        return Section(answers=["Not probed yet: `trimtab probe` of the points (`make findings`)."])
    return Section(
        answers=[f"{counted(orders, _ORDER.values())}.", *grouped(orders, _ORDER.values())],
        table=Table(
            ("run", "left training", *(f"correlation, {what}" for what in _CORRELATIONS.values()), "80 % power for",
             "verdict"),
            rows,
        ),
        drawing=_drawing(panels, ticks),
        meaning=[
            "A correlation below zero: the longer the chosen response is against the rejected one, the earlier the "
            "pair's responses left. With summed log-ratios a longer response can also move further, so the correlation "
            "at equal own length tells length favoured from length itself. The verdict goes by the correlation at "
            "equal quality where quality is known, else by the plain one; one setting in twenty leaves zero out by "
            "chance."
        ],
        limits=[
            "Order in time is not cause. Outside the wind tunnel the true quality is unknown, and only the plain "
            "correlation and the one at equal own length are there."
        ],
    )  # fmt: skip


def _label(name: str, point: Point, told: Mapping[str, Any]) -> str:
    what = method(told["objective"])
    if name.startswith("real-"):
        return f"{name.removeprefix('real-')}: {what}"
    return f"{what}, λ = {point.setting('windtunnel.length_bias'):g}"


def _correlations(side: Mapping[str, Any], book: Book, sweep: Sweep, point: Point, command: str) -> dict[str, Figure]:
    found = {}
    for key in _CORRELATIONS:
        if side["correlations"].get(key) and side["correlations"][key]["value"] is not None:
            figure = from_estimate(side["correlations"][key], unit="")
            found[key] = book.keep(f"saturation/{sweep.name}/{point.name}/{key}", figure, sweep=sweep, command=command)
    return found


def _row(label: str, side: Mapping[str, Any], figures: Mapping[str, Figure]) -> list[str]:
    left = side["share_left"]
    left = left["value"] if isinstance(left, Mapping) else left
    shares = [shown(figures[key], 2, signed=True) if key in figures else "–" for key in _CORRELATIONS]
    judged = figures.get(side["verdict"].get("by", ""))
    seen = number(judged.detectable, 2) if judged else "–"
    return [label, "–" if left is None else f"{left:.0%}", *shares, seen, _ORDER[side["verdict"]["order"]]]


def _last(visits: list[Mapping[str, Any]]) -> Figure:
    return from_estimate(visits[-1], unit="%", factor=100)


def _drawing(panels: dict[str, dict[str, list[Figure]]], ticks: dict[str, list[str]]) -> Drawing | None:
    wanted = [label for label in panels if "λ = 0.5" in label][:3] or list(panels)[:2]
    if not wanted:
        return None
    longest = max((ticks[label] for label in wanted), key=len)
    return Drawing(
        "saturation",
        along(
            {label: panels[label] for label in wanted},
            [str(i + 1) for i in range(len(longest))],
            below="bin, rejected longer → chosen longer",
            title="Share of responses still active at the last visit, by length difference",
            even=None,
        ),
        f"Percent of responses still active at the last visit, by bin of length(chosen) − length(rejected) in tokens "
        f"({'; '.join(longest)}). `trimtab probe` of each point",
    )


QUESTION = Question(
    key="saturation",
    title="Do long-favoured pairs saturate first?",
    asked=(
        "`trimtab probe` on the hinge (m = 1), the linear loss (m = 1000), DPO (δ = 0) and margin_sigmoid (δ = 0.4), "
        "with unbiased (λ = 0) and length-biased labels (λ = 0.5); on real pairs with cardputer-chat-3M."
    ),
    needs=("dead-zone",),
    wants=("dead-zone-sigmoid", "real-ukp", "real-finegrained"),
    answer=answer,
)
