"""(a) Do pairs whose chosen response is longer leave training first? From `trimtab probe` of the points.

The probe's own verdict and correlations are shown; nothing is measured here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from experiments.measurement import Measurement
from experiments.pictures import along
from experiments.question import Answer, Numbers, Picture, Question, Sweeps
from experiments.read_sweeps import Point, Selection, Sweep, points_among
from experiments.words import count, group, method, number, text_of
from trimtab import store
from trimtab.reporting.sections import Table

SIDE = "responses"
POINTS: Mapping[str, Selection] = {
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


@dataclass(frozen=True, slots=True)
class Probe:
    """What the page shows of a `probe.json`: of both sides' responses together. `verdict_key`: the correlation that
    the verdict goes by; `last_visit`: percent still active, by bin of length difference; `bins`: their labels.
    """

    label: str
    share_left: float | None
    correlations: Mapping[str, Measurement]
    verdict: str
    verdict_key: str
    last_visit: list[Measurement]
    bins: list[str]
    is_drawn: bool

    def row(self) -> list[str]:
        by_key = self.correlations
        correlations = [text_of(by_key[key], 2, with_sign=True) if key in by_key else "–" for key in _CORRELATIONS]
        decisive = by_key.get(self.verdict_key)
        detectable = number(decisive.detectable, 2) if decisive else "–"
        share = "–" if self.share_left is None else f"{self.share_left:.0%}"
        return [self.label, share, *correlations, detectable, self.verdict]


def _read(sweep: Sweep, point: Point, numbers: Numbers) -> Probe | None:
    path = point.folder / "probe.json"
    if not path.is_file():
        return None
    tree = store.read_json(path)
    run = tree["runs"][0]
    side = run["sides"][SIDE]
    share = side["share_left"]
    label = method(run["objective"])
    is_real = sweep.name.startswith("real-")
    correlations = {}
    for key in _CORRELATIONS:
        if side["correlations"].get(key) and side["correlations"][key]["value"] is not None:
            name = f"saturation/{sweep.name}/{point.name}/{key}"
            correlation = Measurement.from_json(side["correlations"][key], unit="")
            correlations[key] = numbers.add(name, correlation, sweep=sweep, command=tree["command"])
    return Probe(
        label=f"{sweep.name.removeprefix('real-')}: {label}"
        if is_real
        else f"{label}, λ = {point.setting('windtunnel.length_bias'):g}",
        share_left=share["value"] if isinstance(share, Mapping) else share,
        correlations=correlations,
        verdict=_ORDER[side["verdict"]["order"]],
        verdict_key=side["verdict"].get("by", ""),
        last_visit=[Measurement.from_json(visits[-1], unit="%", factor=100) for visits in side["active"]],
        bins=[entry["label"] for entry in run["bins"]],
        is_drawn="dead zone" in run["leaves"] or sweep.name != "dead-zone",
    )


def answer(sweeps: Sweeps, numbers: Numbers) -> Answer:
    readings = [_read(sweep, point, numbers) for sweep, point in points_among(sweeps, POINTS)]
    probes = [probe for probe in readings if probe is not None]
    if not probes:
        return Answer(sentences=["Not probed yet: `trimtab probe` of the points (`make findings`)."])
    orders = {probe.label: probe.verdict for probe in probes}
    return Answer(
        sentences=[f"{count(orders, _ORDER.values())}.", *group(orders, _ORDER.values())],
        table=Table(
            ("run", "left training", *(f"correlation, {name}" for name in _CORRELATIONS.values()), "80 % power for",
             "verdict"),
            [probe.row() for probe in probes],
        ),
        picture=_picture([probe for probe in probes if probe.is_drawn]),
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


def _picture(probes: list[Probe]) -> Picture | None:
    """Of runs on labels that like length, where there are any: they show it most."""
    panels = [probe for probe in probes if "λ = 0.5" in probe.label][:3] or probes[:2]
    if not panels:
        return None
    longest = max((probe.bins for probe in panels), key=len)
    return Picture(
        "saturation",
        along(
            {probe.label: {"active": probe.last_visit} for probe in panels},
            [str(i + 1) for i in range(len(longest))],
            below="bin, rejected longer → chosen longer",
            title="Share of responses still active at the last visit, by length difference",
            even=None,
        ),
        f"Percent of responses still active at the last visit, by bin of length(chosen) − length(rejected) in tokens "
        f"({'; '.join(longest)}). `trimtab probe` of each point",
    )


QUESTION = Question(
    title="Do long-favoured pairs saturate first?",
    text=(
        "`trimtab probe` on the hinge (m = 1), the linear loss (m = 1000), DPO (δ = 0) and margin_sigmoid (δ = 0.4), "
        "with unbiased (λ = 0) and length-biased labels (λ = 0.5); on real pairs with cardputer-chat-3M."
    ),
    needs=("dead-zone",),
    optional=("dead-zone-sigmoid", "real-ukp", "real-finegrained"),
    answer=answer,
)
