"""The outlook of a run while it trains, from its rows of metrics and visits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from trimtab import store
from trimtab.analysis.outlook import EarlyVisits, Outlook, Shares, least_steps, outlook, tries
from trimtab.engine import optim
from trimtab.engine.order import Order
from trimtab.engine.response_sums import score_gaps
from trimtab.objectives import LogRatios, Objective
from trimtab.objectives.pull import coefficients, pull
from trimtab.progress import Reporter
from trimtab.records import TokenPair
from trimtab.runtime.outlook_words import heading
from trimtab.runtime.run_setup import RunSetup

Row = Mapping[str, Any]
FARTHEST = 1e4  # nats; an objective that still pulls there never lets go


class OutlookWatch:
    """Looks on. `early` is there once it is decided, or as good as it gets; `final` once the last step is done."""

    def __init__(self, setup: RunSetup, order: Order, pairs: Sequence[TokenPair]) -> None:
        self.early: Outlook | None = None
        self.final: Outlook | None = None
        self._objective, self._pairs = setup.objective.at(order.epochs), pairs
        self._rates = rates(setup, order.steps)
        self._tries = tries(self._rates, batch_pairs=smallest_batch(order))
        tenth, enough = len(self._rates) // 10, least_steps(smallest_batch(order)) - 1
        self._last_from = len(self._rates) - max(1, tenth, enough)  # the steps that `final` is made from
        self._sides: list[list[float]] = []
        self._visits: list[tuple[int, Row]] = []

    def check(self, metrics_row: Row, visit: Row) -> bool:
        """Whether this step brought a new outlook."""
        step, steps = len(self._sides), len(self._rates)
        if not self._objective.needs_reference or metrics_row["step"] != step + 1:  # no reference, or lost rows
            return False
        noun = "active" if self._objective.has_dead_zone else "pull"
        self._rates[step] = metrics_row["learning_rate"]  # a resumed run may have had another
        self._sides.append([metrics_row[f"{noun}/{side}"] for side in ("chosen", "rejected")])
        if self._tries or step >= self._last_from:  # what lies between is of no use
            self._visits.append((step, visit))
        if len(self._sides) == steps:
            self._visits = [(at, row) for at, row in self._visits if at >= self._last_from]
            self.final = self.outlook()
            return self.final is not None
        if not self._tries or len(self._sides) < self._tries[0]:
            return False
        del self._tries[0]
        result = self.outlook()
        if result is None or (self._tries and not result.is_decided):
            return False
        self.early, self._tries, self._visits = result, [], []
        return True

    def outlook(self) -> Outlook | None:
        """From the rows so far."""
        return outlook(early_visits(self._objective, self._rates, self._pairs, self._sides, self._visits))

    def to_json(self) -> dict[str, Any]:
        """`outlook.json`."""
        outlooks = {"early": self.early, "final": self.final}
        return {name: None if outlook is None else outlook.to_json() for name, outlook in outlooks.items()}


def watch_from(setup: RunSetup, order: Order, pairs: Sequence[TokenPair]) -> OutlookWatch:
    """A watch that has read the rows that are there."""
    watch, folder = OutlookWatch(setup, order, pairs), setup.folder
    for metrics_row, visit in zip(store.iter_jsonl(folder.metrics), store.iter_jsonl(folder.visits), strict=False):
        watch.check(metrics_row, visit)
    return watch


def first_try(setup: RunSetup, order: Order) -> int | None:
    """After how many steps there is an outlook: all of them where none is earlier, None where the run is too short."""
    if early := tries(rates(setup, order.steps), batch_pairs=smallest_batch(order)):
        return early[0]
    return order.steps if order.steps >= least_steps(smallest_batch(order)) else None


def smallest_batch(order: Order) -> int:
    """Pairs of it: the batches of an epoch are of nearly equal size."""
    return order.pairs // order.steps_per_epoch


def look(watch: OutlookWatch, row: Row, visit: Row, *, setup: RunSetup, reporter: Reporter) -> None:
    """Show a step to the watch; keep and say what is new."""
    if not watch.check(row, visit):
        return
    store.write_json(setup.folder.outlook, watch.to_json())
    if watch.final is None and watch.early is not None:
        words = heading(watch.early, setup.objective, learning_rate=setup.peak_learning_rate)
        reporter.say(f"train: outlook: {words}")


def rates(setup: RunSetup, steps: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The learning rate of every step, [T]."""
    train = setup.config.train
    schedule = {"total": steps, "peak": setup.peak_learning_rate, "schedule": train.schedule, "warmup": train.warmup}
    return np.array([optim.learning_rate(step, **schedule) for step in range(steps)])  # type: ignore[arg-type]


def early_visits(
    objective: Objective,
    rates_T: np.ndarray[Any, np.dtype[np.float64]],
    pairs: Sequence[TokenPair],
    sides: Sequence[Sequence[float]],
    visits: Sequence[tuple[int, Row]],
) -> EarlyVisits:
    """`sides`: the shares that pulled in each step so far; `visits`: rows of `visits.jsonl` with their 0-based step."""
    steps, indices = [], []
    for step, visit in visits:
        steps += [step] * len(visit["pairs"])
        indices += visit["pairs"]
    chosen_V, rejected_V = (
        np.array([ratio for _, visit in visits for ratio in visit[side]]) for side in ("chosen", "rejected")
    )
    lengths = [[len(pairs[i].chosen_ids), len(pairs[i].rejected_ids)] for i in indices]
    lengths_V2 = torch.tensor(lengths, dtype=torch.float64)
    return EarlyVisits(
        rates_T=rates_T,
        steps_V=np.array(steps),
        chosen_V=chosen_V,
        rejected_V=rejected_V,
        sides_K=np.array(sides),
        shares=_shares(
            objective,
            torch.from_numpy(chosen_V),
            torch.from_numpy(rejected_V),
            lengths_V2,
            score_gaps([pairs[i] for i in indices]),
        ),
        reach=_reach(objective),
        has_dead_zone=objective.has_dead_zone,
    )


def _shares(
    objective: Objective,
    chosen_V: torch.Tensor,
    rejected_V: torch.Tensor,
    lengths_V2: torch.Tensor,
    score_gaps_V: torch.Tensor | None = None,
) -> Shares:
    present_R = lengths_V2.flatten() > 0

    def shares(factors_V: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[float, float]:
        scale_V = torch.from_numpy(factors_V)
        zero_V = torch.zeros_like(chosen_V)
        sums = scale_V * chosen_V, scale_V * rejected_V, zero_V, zero_V
        ratios = LogRatios(*sums, lengths_V2[:, 0], lengths_V2[:, 1], score_gaps_V)
        slope_R = coefficients(objective, ratios)
        share_R = (slope_R != 0).double() if objective.has_dead_zone else pull(objective, ratios, slope_R)
        sides = (share_R[side::2][present_R[side::2]] for side in (0, 1))
        chosen, rejected = (float(share_S.mean()) for share_S in sides)
        return chosen, rejected

    return shares


def _reach(objective: Objective) -> float | None:
    """Nats (or nats a token) at which a pair whose sides move apart evenly pulls half as hard as at first."""
    nat_V = torch.ones(1, dtype=torch.float64)
    shares = _shares(objective, nat_V, -nat_V, torch.ones((1, 2), dtype=torch.float64))

    def pulls(nats: float) -> bool:
        return sum(shares(np.array([nats]))) / 2 > 0.5

    low, high = 0.0, FARTHEST
    if pulls(high):
        return None
    for _ in range(40):  # to 1e-8 nats
        middle = (low + high) / 2
        low, high = (middle, high) if pulls(middle) else (low, middle)
    return high
