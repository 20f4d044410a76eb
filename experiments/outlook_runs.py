"""A hundred small runs of the embedded world that differ in objective, β, margin, learning rate, adapter, length and
schedule, drawn with a seed: on what `analysis.outlook` is fitted and tested.

    python -m experiments.outlook_runs --runs runs/outlook    make the runs that are missing and their short form
    python -m experiments.outlook_runs                        how often the outlook was right, from the short form
    python -m experiments.outlook_runs --growth 0.7 0.9 1.1   the same had log-ratios grown otherwise
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trimtab import config as configuration
from trimtab import objectives, store
from trimtab.analysis.intervals import FloatArray
from trimtab.analysis.outlook import GROWTH, Growth, Outlook, outlook, tries
from trimtab.analysis.regime import name_regime
from trimtab.config import Config
from trimtab.engine.optim import learning_rate
from trimtab.progress import SilentReporter
from trimtab.records import TokenPair
from trimtab.runtime.outlook_watch import early_visits
from trimtab.runtime.run_setup import set_up
from trimtab.stages import prepare, reference, train

N_RUNS = 100
SHORT = Path(__file__).with_name("outlook.jsonl")
SIDES = ("chosen", "rejected")
ANY_PAIRS = [TokenPair("any", (1,), (1,), (1,))]  # lengths do not matter to these objectives
OBJECTIVES = ("apo_hinge_zero", "apo_hinge_softplus", "apo_zero", "dpo", "dpo_hinge", "margin_sigmoid")
HINGES = ("apo_hinge_zero", "apo_hinge_softplus", "dpo_hinge")
FULL_RATES, ADAPTER_RATES = (1e-5, 2e-3), (1e-4, 1e-2)
BETAS = (0.03, 3.0)
SMALL = {"pairs": 256, "batch_pairs": 8}  # 32 steps an epoch


def points(n: int = N_RUNS) -> list[dict[str, Any]]:
    """The trees of keys, in the order of their numbers; a longer list begins as a shorter one does."""
    return [_point(number) for number in range(n)]


def _point(number: int) -> dict[str, Any]:
    draw = random.Random(number)  # noqa: S311  # an experiment
    name = OBJECTIVES[number % len(OBJECTIVES)]
    objective: dict[str, Any] = {"name": name, "beta": _log_uniform(draw, *BETAS)}
    if name in HINGES:
        objective["margin"] = draw.choice((0.5, 1.0, 2.0))
    if name == "margin_sigmoid":
        objective["delta"] = draw.choice((0.1, 0.2, 0.4))
    lora = draw.random() < 0.5
    return {
        "model": "windtunnel",
        "data": {"source": "windtunnel", "holdout": 0, "max_prompt_tokens": 96, "max_response_tokens": 64},
        "windtunnel": {"pairs": SMALL["pairs"], "length_bias": draw.choice((0.0, 0.3))},
        "objective": objective,
        "adapter": {"kind": "lora", "rank": 8} if lora else {"kind": "none"},
        "train": {
            "epochs": draw.choice((1, 2, 3)),
            "batch_pairs": SMALL["batch_pairs"],
            "learning_rate": _log_uniform(draw, *(ADAPTER_RATES if lora else FULL_RATES)),
            "schedule": draw.choice(("linear", "cosine", "constant")),
            "save_every": 10_000,
        },
        "engine": {"threads": 1, "device": "cpu", "dtype": "float32"},
        "seed": number,
    }


def _log_uniform(draw: random.Random, low: float, high: float) -> float:
    """Two significant digits, as people write them."""
    return float(f"{low * (high / low) ** draw.random():.2g}")


def make(runs: Path, n: int) -> None:
    """Train every run that has not finished yet."""
    for number, tree in enumerate(points(n)):
        setup = set_up(_config(tree, runs, number))
        if setup.folder.selection.is_file():
            continue
        silent = SilentReporter()
        for stage in (prepare, reference, train):
            stage.main(setup, reporter=silent)
        for path in (setup.folder.checkpoints, setup.folder.model):
            store.remove(path)
        print(f"run {number} of {n}", flush=True)


def _config(tree: dict[str, Any], runs: Path, number: int) -> Config:
    return configuration.resolve(tree | {"out": str(runs / f"{number:03d}")})


def shorten(runs: Path, n: int) -> list[dict[str, Any]]:
    """Of each run what the outlook is made and tested with: its point, the shares that pulled in every step, and the
    log-ratios of the steps up to the last try, in two significant digits."""
    short = []
    for number, tree in enumerate(points(n)):
        setup = set_up(_config(tree, runs, number))
        rows, visits = store.read_jsonl(setup.folder.metrics), store.read_jsonl(setup.folder.visits)
        noun = "active" if setup.objective.has_dead_zone else "pull"
        last = max(tries(np.array([row["learning_rate"] for row in rows]), batch_pairs=SMALL["batch_pairs"]))
        short.append(
            {
                "objective": tree["objective"],
                "adapter": tree["adapter"]["kind"],
                "learning_rate": tree["train"]["learning_rate"],
                "schedule": tree["train"]["schedule"],
                "epochs": tree["train"]["epochs"],
                "sides": [[round(row[f"{noun}/{side}"], 3) for side in SIDES] for row in rows],
                "visits": [[[float(f"{r:.2g}") for r in visit[side]] for side in SIDES] for visit in visits[:last]],
                "spread_at_end": [float(f"{_spread(visits[-max(1, len(rows) // 10) :]):.3g}")],
            }
        )
    return short


def _spread(visits: Sequence[Mapping[str, Any]]) -> float:
    """Root mean square of log-ratios, nats."""
    return float(np.sqrt(np.mean([np.square(visit[side]).mean() for visit in visits for side in SIDES])))


@dataclass(frozen=True, slots=True)
class Case:
    """One run: the regime it had, the outlook that a run says once and after how many steps, and the exponent by which
    its log-ratios grew from a tenth of the steps to the last tenth."""

    regime: str
    outlook: Outlook
    growth: float

    @property
    def is_right(self) -> bool:
        return self.regime == self.outlook.regime


def case(short: Mapping[str, Any], *, growth: Growth = GROWTH) -> Case:
    """What a run would have said, and what came."""
    objective = objectives.make(**short["objective"])
    sides, visits = short["sides"], [_visit(step, row) for step, row in enumerate(short["visits"])]
    rates_T = _rates(short)
    noun = "active" if objective.has_dead_zone else "pull"
    rows = [{f"{noun}/{side}": share for side, share in zip(SIDES, row, strict=True)} for row in sides]
    made = None
    for step in tries(rates_T, batch_pairs=SMALL["batch_pairs"]):
        seen = early_visits(objective, rates_T, ANY_PAIRS, sides[:step], visits[:step])
        made = outlook(seen, growth=growth) or made
        if made is not None and made.is_decided:
            break
    if made is None:
        raise ValueError("no outlook")
    regime = name_regime(rows, has_dead_zone=objective.has_dead_zone).name
    return Case(regime, made, _growth(rates_T, visits, short["spread_at_end"][0]))


def _rates(short: Mapping[str, Any]) -> FloatArray:
    steps, peak = len(short["sides"]), short["learning_rate"]
    return np.array(
        [learning_rate(t, total=steps, peak=peak, schedule=short["schedule"], warmup=0.1) for t in range(steps)]
    )


def _visit(step: int, row: Sequence[Sequence[float]]) -> tuple[int, dict[str, Any]]:
    return step, {"pairs": [0] * len(row[0]), "chosen": row[0], "rejected": row[1]}


def _growth(rates_T: FloatArray, visits: Sequence[tuple[int, Mapping[str, Any]]], spread_at_end: float) -> float:
    distance_T = np.concatenate([[0.0], np.cumsum(rates_T)[:-1]])
    early = [(step, visit) for step, visit in visits if 1 <= step < max(4, len(rates_T) // 10)]
    ways = [distance_T[step] for step, _ in early]
    end = float(np.mean(distance_T[-max(1, len(rates_T) // 10) :]))
    return float(np.log(spread_at_end / _spread([visit for _, visit in early])) / np.log(end / np.mean(ways)))


def summary(cases: Sequence[Case]) -> list[str]:
    """How often the outlook was right, on all runs and on each half; growth by which GROWTH was chosen."""
    halves = {"all": cases, "even": cases[0::2], "odd": cases[1::2]}
    return [f"{name}: {_summary(part)}" for name, part in halves.items()]


def _summary(cases: Sequence[Case]) -> str:
    decided = [case for case in cases if case.outlook.is_decided]
    n_right, n_decided_right = (sum(case.is_right for case in part) for part in (cases, decided))
    regimes = ", ".join(f"{n} {name}" for name, n in Counter(case.regime for case in cases).items())
    low, middle, high = np.quantile([case.growth for case in cases], (0.1, 0.5, 0.9))
    way = np.median([case.outlook.step / case.outlook.steps for case in cases])
    return (
        f"{len(cases)} runs ({regimes}); right {n_right}; decided {len(decided)}, of these right {n_decided_right}; "
        f"said after {way:.0%} of the steps (median); growth {middle:.2f} ({low:.2f} to {high:.2f}, the middle 80 %)"
    )


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, metavar="DIR")
    parser.add_argument("--n", type=int, default=N_RUNS)
    parser.add_argument("--growth", type=float, nargs=3, default=GROWTH, metavar="EXPONENT")
    arguments = parser.parse_args(words)
    if arguments.runs is not None:
        make(arguments.runs, arguments.n)
        store.write_jsonl(SHORT, shorten(arguments.runs, arguments.n))
    growth = (arguments.growth[0], arguments.growth[1], arguments.growth[2])
    print("\n".join(summary([case(row, growth=growth) for row in store.read_jsonl(SHORT)])))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
