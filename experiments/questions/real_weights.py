"""The paper's methods on a real instruct model: from the JSON files that `experiments.real.runs` leaves.

Intervals are over seeds where there are several, and never narrower than over all held-out pairs; differences are of
the same seed's pairs. Only `OWN_PROMPTS` has prompts enough for seeds that share none: elsewhere nothing is tested. The
run that picked a method's rate is left out where other seeds have been run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np

from experiments.measurement import ANYTHING, Measurement, cut, detectable, holm, mean, over_seeds, rank_correlation
from experiments.question import Answer, Numbers, Question, Sweeps
from experiments.questions.real_origin import made_on
from experiments.questions.real_rates import correct
from experiments.real import rewards
from experiments.real.runs import METHODS, SEEDS, SETS, TUNING_SET, UNTUNED, Run, read_results, tuned_rate
from experiments.words import join_words, number, text_of
from trimtab import store
from trimtab.analysis import calibration, estimates
from trimtab.analysis.intervals import FloatArray, difference_test, finite, paired_mean_test
from trimtab.reporting.sections import Table

COMMAND = "python -m experiments.real.runs --model SMOLLM2_FOLDER --shared DIR --work WORK"
AGAINST = "dpo"
OWN_PROMPTS = ("hh-rlhf-harmless",)
"""Sets whose seeds hold out pairs under different prompts."""

LEAST_RANKED = 4  # methods, below which a rank correlation is 0, 1/3 or 1
OVER_ROWS = "Student's t over the rows of all seeds, corrected for skewness: wider than over seeds"
NO_ROW_DIFFERS = "Tango's score interval over the rows of all seeds, none of which differs"
CONTRADICTION = "against the wind tunnel"
PERCENT = (0.0, 100.0)
WITH_DEAD_ZONE, WITHOUT = "apo_hinge_zero", "apo_zero"
Results = Mapping[Run, Mapping[str, Any]]

# 2508.08466, Table 1: AlpacaEval win rate and length-controlled win rate, one seed of Qwen2.5-0.5B-Instruct
PUBLISHED = {
    "apo_hinge_zero": (36.02, 17.07), "aot": (35.92, 14.96), "dpo_hinge": (34.60, 16.37), "dpo": (34.41, 15.02),
    "apo_hinge_softplus": (34.10, 12.67), "apo_zero": (34.02, 15.68), "exo_pair": (31.22, 13.15),
    "margin_sigmoid": (31.11, 13.91), "untuned": (32.92, 16.39),
}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """A method on one set: its runs at the tuned rate, a seed each."""

    source: str
    method: str
    rate: float
    runs: tuple[Mapping[str, Any], ...]

    def correct(self) -> list[FloatArray]:
        """A seed."""
        return [correct(run) for run in self.runs]

    def size(self) -> str:
        """Seeds and the held-out pairs of each; whether these picked the rate."""
        sizes = sorted({len(run["log_ratios"]) for run in self.runs})
        text = f"{len(self.runs)} × {' to '.join(str(n) for n in dict.fromkeys((sizes[0], sizes[-1])))}"
        return f"{text}, picked the rate" if any(map(_picked_the_rate, self.runs)) else text

    def each(self, key: str) -> list[float]:
        return [float(run[key]) for run in self.runs]

    def ece(self) -> list[float]:
        """Percent a seed, of σ(β·(r_w − r_l))."""
        gaps = [-run["beta"] * np.diff(np.array(run["log_ratios"]))[:, 0] for run in self.runs]
        return [100 * calibration.calibration(gap).ece for gap in gaps]

    def wins(self) -> list[FloatArray]:
        """A seed: percent a prompt, 100 where the reward model prefers the answer to the untuned model's; none unless
        it has scored every seed's."""
        scored = [run.get("rewards") for run in self.runs]
        if not all(scored):
            return []
        scores = [np.array(pair, dtype=np.float64) for pair in scored]
        return [50.0 * (1.0 + np.sign(pair[1] - pair[0])) for pair in scores]

    def preferred(self) -> Measurement | None:
        """Percent of answers that the reward model prefers to the untuned model's, over seeds and prompts."""
        wins = self.wins()
        return mean(np.stack(wins), unit="%", within=PERCENT) if wins else None

    def lengthening(self) -> list[FloatArray]:
        """A seed: tokens an answer grew by, a prompt each."""
        return [
            np.array(run["answers"]["after"], dtype=np.float64) - np.array(run["answers"]["before"])
            for run in self.runs
        ]


def cells(results: Results) -> list[Cell]:
    """Sets and methods of which a run at the tuned rate has ended, in the order of both."""
    rates = {method: tuned_rate(method, results) for method in METHODS}
    grid = []
    for source in SETS:
        for method in METHODS:
            rate = rates[method]
            runs = [
                tree for run, tree in results.items() if (run.source, run.method, run.rate) == (source, method, rate)
            ]
            runs = [run for run in runs if not _picked_the_rate(run)] or runs
            if rate is not None and runs:
                grid.append(Cell(source, method, rate, tuple(sorted(runs, key=lambda tree: tree["run"]["seed"]))))
    return grid


def _picked_the_rate(tree: Mapping[str, Any]) -> bool:
    """Whether the run's held-out pairs decided for its learning rate, so that they flatter it."""
    return (tree["run"]["source"], tree["run"]["seed"]) == (TUNING_SET, SEEDS[0])


def with_rewards(results: Results) -> Results:
    """Each run with the reward model's scores of the untuned model's answers and its own, where it has scored both."""
    scored = {
        run: [rewards.read_scores(name) for name in (tree["answers"].get("untuned", UNTUNED), run.name)]
        for run, tree in results.items()
    }
    return {run: {**tree, "rewards": scored[run]} if all(scored[run]) else tree for run, tree in results.items()}


def measured(values: Sequence[FloatArray], *, unit: str, within: tuple[float, float] = ANYTHING) -> Measurement:
    """Percent a held-out pair: over seeds where there are several, else over the rows of the one. `within`: what the
    number can be at all.

    Three seeds may lie closer together by chance than their rows allow: no interval is narrower than that over all
    rows, and no p-value smaller.
    """
    rows_N = np.concatenate(values)
    if not rows_N.any():
        return _all_zero(len(rows_N), n_seeds=len(values), unit=unit, within=within)
    if len(values) == 1:
        return mean(rows_N[None, :], unit=unit, within=within)
    of_seeds = over_seeds([float(row.mean()) for row in values], unit=unit, within=within)
    of_rows = paired_mean_test(rows_N)
    if of_seeds.ci95 is not None and np.ptp(of_seeds.ci95) >= np.ptp(of_rows.ci95):
        return of_seeds
    p_values = [p for p in (of_seeds.p_value, finite(of_rows.p_value)) if p is not None]
    error = float(rows_N.std(ddof=1)) / math.sqrt(len(rows_N))
    of_both = Measurement(
        replace(of_seeds.estimate, ci95=of_rows.ci95, method=OVER_ROWS),
        p_value=max(p_values, default=None),
        detectable=detectable(error, freedom=len(rows_N) - 1),
    )
    return cut(of_both, within)


def _all_zero(n: int, *, n_seeds: int, unit: str, within: tuple[float, float]) -> Measurement:
    """Rows without any scale: two methods that order every pair alike. The next pair may still be another one."""
    low, high = difference_test(np.zeros(n)).ci95
    ci95 = (100 * low, 100 * high)
    estimate = estimates.estimate(0.0, ci95, n=n, method=NO_ROW_DIFFERS, n_seeds=n_seeds, unit=unit)
    return cut(Measurement(estimate, p_value=1.0), within)


def difference(a: Cell, b: Cell) -> list[FloatArray]:
    """Points of held-out accuracy, A minus B, on the pairs of the seeds that both have."""
    rows = {
        cell: {run["run"]["seed"]: row for run, row in zip(cell.runs, cell.correct(), strict=True)} for cell in (a, b)
    }
    return [rows[a][seed] - rows[b][seed] for seed in rows[a] if seed in rows[b]]


def answer(_sweeps: Sweeps, numbers: Numbers) -> Answer:
    results = with_rewards(read_results())
    grid = cells(results)
    if not grid:
        return Answer([f"Not run yet: `{COMMAND}`."], short="Not run yet.")
    gaps = {cell: _less_dpo(cell, grid) for cell in grid if cell.method != AGAINST}
    known = {cell: gap for cell, gap in gaps.items() if gap is not None}
    tested = [cell for cell in known if cell.source in OWN_PROMPTS]
    adjusted = dict(zip(tested, holm([known[cell].p_value for cell in tested]), strict=True))
    rows = [_row(cell, known.get(cell), adjusted.get(cell), numbers) for cell in grid]
    sentences = [
        *_verdict(known, adjusted),
        *_dead_zone(grid, numbers),
        *_drift(grid, numbers),
        _forgetting(grid, numbers),
        _screening(grid),
        *_reward_model(grid),
    ]
    return Answer(
        sentences=sorted(sentences, key=lambda text: CONTRADICTION not in text),  # these first
        table=Table(
            ("set", "method", "rate", "seeds × pairs", "held-out accuracy, %", "less DPO, points",
             "p (Holm)", "ECE, %", "drift, nats a token", "answers, tokens longer", "preferred by the reward model, %",
             "active at the end, chosen / rejected, %"),
            rows,
        ),
        meaning=[_missing(results, grid), made_on(results.values()), _published()],
        limits=[
            "One model of 135M parameters, 128 pairs a run, one epoch: what more training would do is not seen here. "
            "Held-out pairs of ukp-convarg1-strict stand under eight prompts, the same for each seed, and the other "
            "side of each of these debates was trained on; those of finegrained-rlhf share prompts and responses "
            "between seeds too: intervals on both sets are too narrow, and no difference there is tested. Answers end "
            "at 128 tokens, so most are cut and what they grow beyond that is not seen. The reward model is as small, "
            "trained on pairs of hh-rlhf-harmless alone, of the very file that the runs on that set train on: that it "
            "prefers their answers says that they learned what it did. No other judge read the answers."
        ],
    )  # fmt: skip


def _less_dpo(cell: Cell, grid: Sequence[Cell]) -> Measurement | None:
    other = next((c for c in grid if (c.source, c.method) == (cell.source, AGAINST)), None)
    rows = difference(cell, other) if other else []
    return measured(rows, unit="points") if rows else None


def _row(cell: Cell, gap: Measurement | None, p: float | None, numbers: Numbers) -> list[str]:
    name = f"real/{cell.source}/{cell.method}"
    revision = join_words(sorted({run["about"]["revision"] for run in cell.runs}))

    def put(key: str, measurement: Measurement) -> Measurement:
        return numbers.put(f"{name}/{key}", measurement, command=COMMAND, revision=revision)

    accuracy = put("accuracy", measured(cell.correct(), unit="%", within=PERCENT))
    growth = put("lengthening", mean(np.stack(cell.lengthening()), unit="tokens"))
    if gap is not None:
        put("less-dpo", gap)
    preferred = cell.preferred()
    if preferred is not None:
        put("reward-model", preferred)
    active = [fmean(run["active"][side][-1] for run in cell.runs) for side in ("chosen", "rejected")]
    return [
        cell.source, cell.method, f"{cell.rate:g}", cell.size(), text_of(accuracy),
        "–" if gap is None else text_of(gap, with_sign=True), number(p, 2),
        number(fmean(cell.ece())), number(fmean(cell.each("drift")), 3), text_of(growth, with_sign=True),
        "–" if preferred is None else text_of(preferred),
        f"{active[0]:.0f} / {active[1]:.0f}",
    ]  # fmt: skip


def _verdict(gaps: Mapping[Cell, Measurement], adjusted: Mapping[Cell, float | None]) -> list[str]:
    if not gaps:
        return ["No method has a seed in common with DPO, both at their tuned rates."]
    tested = {cell: gap for cell, gap in gaps.items() if adjusted.get(cell) is not None}
    rest = {cell: gap for cell, gap in gaps.items() if cell not in tested}
    single = {cell: gap for cell, gap in rest.items() if gap.estimate.n_seeds == 1}
    several = [cell for cell in rest if cell not in single]
    texts = _over_seeds(tested, adjusted)
    if single:
        texts.append(f"One seed, held-out accuracy less DPO's: {_each(single)}.")
    for source in dict.fromkeys(cell.source for cell in several):
        each = [
            f"{cell.method} {number(gaps[cell].value, with_sign=True)}" for cell in several if cell.source == source
        ]
        texts.append(
            f"{source}: several seeds, not tested, points of held-out accuracy less DPO's: {join_words(each)}."
        )
    return texts


def _over_seeds(gaps: Mapping[Cell, Measurement], adjusted: Mapping[Cell, float | None]) -> list[str]:
    """Of those with several seeds."""
    if not gaps:
        return []
    apart = {cell: gap for cell, gap in gaps.items() if (adjusted[cell] or 1.0) < 0.05}
    sizes = [gap.detectable for gap in gaps.values() if gap.detectable]
    ends = dict.fromkeys([number(min(sizes)), number(max(sizes))]) if sizes else ()
    power = f" (80 % power for {' to '.join(ends)} points before Holm)" if ends else ""
    if not apart:
        return [f"Held-out accuracy: of {len(gaps)} comparisons with DPO none is apart from zero after Holm{power}."]
    return [f"Held-out accuracy apart from DPO's, points after Holm: {_each(apart)}; the others are not{power}."]


def _each(gaps: Mapping[Cell, Measurement]) -> str:
    return join_words(
        [f"{cell.method} on {cell.source} ({text_of(gap, with_sign=True)})" for cell, gap in gaps.items()]
    )


def _dead_zone(grid: Sequence[Cell], numbers: Numbers) -> list[str]:
    """Tokens an answer, the hinge less the same loss without a dead zone, beside what the labels like: in the wind
    tunnel a dead zone shortens answers where labels favour length."""
    texts = []
    for source in SETS:
        found = {cell.method: cell for cell in grid if cell.source == source}
        if WITH_DEAD_ZONE not in found or WITHOUT not in found:
            continue
        a, b = ({run["run"]["seed"]: row for run, row in zip(c.runs, c.lengthening(), strict=True)}
                for c in (found[WITH_DEAD_ZONE], found[WITHOUT]))  # fmt: skip
        rows = [a[seed] - b[seed] for seed in a if seed in b]
        if rows:
            gap = numbers.put(
                f"real/{source}/dead-zone-length", mean(np.stack(rows), unit="tokens"), command=COMMAND,
                revision="see the runs",
            )  # fmt: skip
            rates = {found[name].rate for name in (WITH_DEAD_ZONE, WITHOUT)}
            at = "" if len(rates) == 1 else f", at rates of {found[WITH_DEAD_ZONE].rate:g} and {found[WITHOUT].rate:g}"
            longer = _chosen_longer(found[WITH_DEAD_ZONE].runs)
            texts.append(f"{text_of(gap, with_sign=True)} on {source}{at} ({_as_in_wind_tunnel(gap, longer)})")
    return [f"The dead zone's answers, {WITH_DEAD_ZONE} less {WITHOUT}, tokens: {join_words(texts)}."] if texts else []


def _drift(grid: Sequence[Cell], numbers: Numbers) -> list[str]:
    """Whether the methods that move further are worse calibrated: a rank correlation over methods, a seed."""
    texts = []
    for source in OWN_PROMPTS:
        own = [cell for cell in grid if cell.source == source]
        seeds = [run["run"]["seed"] for run in own[0].runs] if own else []
        whole = [cell for cell in own if [run["run"]["seed"] for run in cell.runs] == seeds]
        if len(whole) < LEAST_RANKED:
            continue
        per_seed = zip(*(zip(cell.each("drift"), cell.ece(), strict=True) for cell in whole), strict=True)
        tau = over_seeds([rank_correlation(*zip(*row, strict=True)) for row in per_seed], within=(-1.0, 1.0))
        numbers.put(f"real/{source}/drift-and-ece", tau, command=COMMAND, revision="see the runs")
        least, most = (pick(whole, key=lambda cell: fmean(cell.each("drift"))) for pick in (min, max))
        ends = [f"{fmean(c.each('drift')):.3f} and {fmean(c.ece()):.1f} % under {c.method}" for c in (least, most)]
        low, high = tau.ci95 or (-1.0, 1.0)
        verdict = "further moved is worse calibrated" if low > 0 else "further moved is better calibrated"
        texts.append(
            f"Drift and calibration of {len(whole)} methods on {source}: "
            f"{'not distinguishable from no relation' if low <= 0 <= high else verdict} (Kendall's τ a seed "
            f"{text_of(tau, 2, with_sign=True)}), from {ends[0]} to {ends[1]}."
        )
    return texts


def _chosen_longer(runs: Sequence[Mapping[str, Any]]) -> float:
    """Percent of held-out pairs, of those of unequal length, whose chosen response is the longer one."""
    lengths = np.concatenate([np.array(run["tokens"]) for run in runs])
    unequal = lengths[lengths[:, 0] != lengths[:, 1]]
    return 100 * float((unequal[:, 0] > unequal[:, 1]).mean()) if len(unequal) else 50.0


def _as_in_wind_tunnel(gap: Measurement, longer: float) -> str:
    """`longer`: percent of pairs whose labels chose the longer response."""
    labels = f"labels choose the longer response in {longer:.0f} %"
    low, high = gap.ci95 or (-np.inf, np.inf)
    if low <= 0 <= high:
        return f"not distinguishable; {labels}"
    if longer <= 50:
        return f"{labels}, so the wind tunnel says nothing of it"
    return f"{CONTRADICTION if low > 0 else 'as in the wind tunnel'}; {labels}"


def _reward_model(grid: Sequence[Cell]) -> list[str]:
    """Whose answers it tells from the untuned model's, and what its own held-out pairs say of it."""
    if not rewards.ABOUT.exists():
        return []
    found = {cell: preferred for cell in grid if (preferred := cell.preferred()) is not None}
    apart = {cell: rate for cell, rate in found.items() if rate.ci95 and (rate.ci95[0] > 50 or rate.ci95[1] < 50)}
    each = join_words([f"{cell.method} on {cell.source} ({text_of(rate)})" for cell, rate in apart.items()])
    verdict = (
        f"In {len(apart)} of {len(found)} rows, each tested alone, the reward model tells the answers from the untuned "
        "model's, percent preferred"
    )
    return [rewards.in_words(store.read_json(rewards.ABOUT)), *([f"{verdict}: {each}."] if apart else [])]


def _forgetting(grid: Sequence[Cell], numbers: Numbers) -> str:
    """Nats a token of answers to unrelated instructions, after less before: a seed's mean over methods and sets."""
    changes: dict[int, list[float]] = {}
    for run in (run for cell in grid for run in cell.runs):
        changes.setdefault(run["run"]["seed"], []).append(run["unrelated_nll"][1] - run["unrelated_nll"][0])
    change = over_seeds([fmean(row) for row in changes.values()], unit="nats")
    numbers.put("real/unrelated-nll", change, command=COMMAND, revision="see the runs")
    every = [value for row in changes.values() for value in row]
    return (
        f"Unrelated text, nats a token, after less before: {text_of(change, 3, with_sign=True)}, from "
        f"{min(every):+.3f} to {max(every):+.3f} in {len(every)} runs."
    )


def _screening(grid: Sequence[Cell]) -> str:
    skipped = {cell: 100 * fmean(cell.each("skipped_backward")) for cell in grid}
    most = max(skipped, key=lambda cell: skipped[cell])
    if skipped[most] < 0.5:
        return "Screening skipped no backward pass: in one epoch no pair has been seen before, so nothing is forecast."
    return (
        f"The backward pass that screening skipped is largest under {most.method} on {most.source}: "
        f"{skipped[most]:.0f} % of response tokens."
    )


def _missing(results: Results, grid: Sequence[Cell]) -> str:
    untuned = [method for method in METHODS if tuned_rate(method, results) is None]
    seeds = sum(len(cell.runs) for cell in grid)
    text = f"{len(results)} runs have ended, {seeds} of them at a tuned rate (picked on {TUNING_SET} by accuracy)."
    return text + (f" Not tuned yet: {join_words(untuned)}." if untuned else "")


def _published() -> str:
    rates = [f"{name} {raw:.1f} / {controlled:.1f}" for name, (raw, controlled) in PUBLISHED.items()]
    return (
        f"The paper's own table (AlpacaEval win rate / length-controlled, 0.5B, one seed, standard errors of the win "
        f"rate about 1.7 points; of the six differences that its published judgments give pair by pair, all among "
        f"apo_hinge_zero, apo_zero, dpo, dpo_hinge and untuned, none is significant at 5 %): {join_words(rates)}."
    )


QUESTION = Question(
    title="On a real model",
    text=(
        "SmolLM2-135M-Instruct with LoRA on 128 real pairs a run, each method at the learning rate that tuning picked "
        "for it; held-out pairs are under prompts that nobody trained on."
    ),
    needs=(),
    answer=answer,
    prefix="real/",
)
