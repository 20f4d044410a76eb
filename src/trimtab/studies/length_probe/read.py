"""What `trimtab probe` reads of a run: which responses still pulled at which visit, and what is known of each pair.

From files alone: no model is loaded. The objective is a value; coefficients come from it by autograd on the log-ratios
that `visits.jsonl` holds, batch by batch, as training had them. Shapes: P pairs, V visits, S = 2 sides (chosen,
rejected), W single visits of all pairs. Lengths are tokens, log-ratios nats.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trimtab import config, store
from trimtab.analysis.intervals import FloatArray
from trimtab.analysis.length_probe import BoolArray, IntArray
from trimtab.config import Config, files
from trimtab.engine import gradient, reference
from trimtab.engine.order import Order
from trimtab.errors import ConfigError, DataError, StoreError, UserError
from trimtab.objectives import LogRatios, Objective
from trimtab.objectives import pull as pulling
from trimtab.records import TokenPair
from trimtab.runtime import policy
from trimtab.runtime.folder import Folder, one_a_seed
from trimtab.runtime.inputs import EMBEDDED

FADED = 0.05  # of the pull at the reference, below which a response without a dead zone counts as saturated


@dataclass(frozen=True, slots=True)
class Visits:
    """One seed. `active_PVS`, `pull_PVS` and `ratio_PVS` hold the first V visits of the pairs that were probed; the
    others have a row for each single visit: its step, its pair, what was active and how hard it pulled."""

    seed: int
    root: Path
    single: Config
    n_steps: int
    active_PVS: BoolArray
    pull_PVS: FloatArray
    ratio_PVS: FloatArray
    step_W: IntArray
    pair_W: IntArray
    active_WS: BoolArray
    pull_WS: FloatArray


@dataclass(frozen=True, slots=True)
class Probed:
    """A run with all of its seeds. Rows are the pairs that every seed visited V times or more.

    `quality_PS` is the true quality of both responses, known only in the embedded world; `reference_PS` the reference's
    log-probabilities, None where its cache is gone. `pairs_digest` names the training pairs.
    """

    folder: str
    told: Config
    objective: Objective
    seeds: tuple[Visits, ...]
    planned_steps: int
    n_left_out: int
    n_visits: int
    length_PS: FloatArray
    prompts_P: tuple[tuple[int, ...], ...]
    quality_PS: FloatArray | None
    reference_PS: FloatArray | None
    pairs_digest: str

    @property
    def difference_P(self) -> FloatArray:
        """len(chosen) − len(rejected)."""
        difference: FloatArray = self.length_PS[:, 0] - self.length_PS[:, 1]
        return difference


def read(run_folder: str) -> Probed:
    """Everything there is. Raises UserError where a file is missing or the seeds did not train on the same pairs."""
    told, singles = _configs(run_folder)
    folders = [Folder.of(single) for single in singles]
    for folder in folders:
        _require(folder)
    digests = [store.file_digest(folder.data / "train.jsonl") for folder in folders]
    if len(set(digests)) > 1:
        raise DataError(
            f"the seeds of {run_folder} did not train on the same pairs", remedy="probe each seed's folder alone"
        )
    pairs = policy.read_pairs(folders[0].data / "train.jsonl")
    objective = told.objective.value()
    held_PS, weighted_PS = _reference(singles[0], folders[0], objective, pairs)
    length_PS = np.array([(len(p.chosen_ids), len(p.rejected_ids)) for p in pairs], dtype=np.float64)
    raw = [
        _replayed(single, folder, objective, length_PS, weighted_PS)
        for single, folder in zip(singles, folders, strict=True)
    ]
    counts_P = np.min([np.bincount(one.pair_W, minlength=len(pairs)) for one in raw], axis=0)
    n_visits = _visits_of_all(counts_P)
    kept_P = np.flatnonzero(counts_P >= n_visits)
    return Probed(
        folder=run_folder,
        told=told,
        objective=objective,
        seeds=tuple(_visits(one, kept_P, n_visits) for one in raw),
        planned_steps=_order(singles[0], len(pairs)).steps,
        n_left_out=len(pairs) - len(kept_P),
        n_visits=n_visits,
        length_PS=length_PS[kept_P],
        prompts_P=tuple(pairs[i].prompt_ids for i in kept_P),
        quality_PS=_quality(told, folders[0], [pairs[i].id for i in kept_P]),
        reference_PS=None if held_PS is None else held_PS[kept_P],
        pairs_digest=digests[0],
    )


# --- what is there ---------------------------------------------------------------------------------------------------


def _configs(run_folder: str) -> tuple[Config, list[Config]]:
    """The run's configuration and one a seed. A sweep's point may have nothing but the folders of its seeds."""
    root = Path(run_folder)
    if not root.is_dir():
        raise ConfigError(f"no such run folder: {root}", remedy="name the folder that `trimtab run` printed")
    if (root / "config.json").is_file():
        told = _config(root)
        return told, one_a_seed(told)
    found = [path.parent for path in root.glob("seed-*/config.json")]
    if not found:
        raise ConfigError(f"{root} is no run folder: it has no config.json", remedy="name the folder of a run")
    singles = sorted((_config(path) for path in found), key=lambda single: single.seed)
    alike = [single.model_copy(update={"seed": 0, "out": run_folder}) for single in singles]
    if any(other != alike[0] for other in alike):
        raise ConfigError(
            f"the runs in {root} differ in more than their seed", remedy="name one of them, or several side by side"
        )
    return singles[0].model_copy(update={"out": run_folder, "seeds": len(singles)}), singles


def _config(root: Path) -> Config:
    return config.resolve(files.read_file(root / "config.json") | {"out": str(root)})  # also where it was moved


def _require(folder: Folder) -> None:
    again = f"trimtab run {shlex.quote(str(folder.config))}"
    if not (folder.data / "train.jsonl").is_file() or not folder.metrics.is_file():
        raise ConfigError(f"{folder.root} has not been trained yet", remedy=f"finish it first: {again} --resume")
    if not folder.visits.is_file():
        raise ConfigError(
            f"{folder.root} has no visits.jsonl: it was trained by a trimtab that did not write down its visits",
            remedy=f"train it anew: {again} --out {shlex.quote(f'{folder.root}-again')}",
        )
    for path in (folder.data / "train.jsonl", folder.metrics, folder.visits):
        folder.intact(path)


def _quality(told: Config, folder: Folder, ids: Sequence[str]) -> FloatArray | None:
    """[P, S] by the oracle, which `prepare` noted beside every pair of the embedded world; None for other data."""
    if told.data.source != EMBEDDED:
        return None
    rows = {row["id"]: row["meta"] for row in store.iter_jsonl(folder.require(folder.data / "pairs.jsonl", "prepare"))}
    return np.array([[float(rows[id][f"quality_{side}"]) for side in ("chosen", "rejected")] for id in ids])


def _reference(
    single: Config, folder: Folder, objective: Objective, pairs: Sequence[TokenPair]
) -> tuple[FloatArray | None, torch.Tensor | None]:
    """The reference's log-probabilities, plain [P, S] and as the objective weighs them [2P], where they are cached.

    Raises ConfigError where they are gone and the objective cannot be replayed without them.
    """
    found = None
    if folder.reference.is_file():
        try:
            rows = reference.read(policy.reference_key(single, folder), pairs).of_pairs(pairs)
            plain = np.array([float(row.double().sum()) for row in rows]).reshape(-1, 2)
            found = plain, gradient.weighted_sums(rows, pairs, objective)
        except (StoreError, UserError, OSError):  # told as "not known": nothing but one row of a table hangs on it
            found = None
    if found is None and objective.needs_reference and objective.batch_coupled:
        raise ConfigError(
            f"{objective.name} compares pairs with each other by their reference log-probabilities, which are no "
            f"longer in the cache ({store.home() / 'reference'})",
            remedy=f"compute them again: trimtab reference {shlex.quote(str(folder.root))}",
        )
    return (None, None) if found is None else found


# --- replaying -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Raw:
    """All visits of one seed in the order in which they came."""

    single: Config
    root: Path
    n_steps: int
    step_W: IntArray
    pair_W: IntArray
    ratio_WS: FloatArray
    pull_WS: FloatArray
    active_WS: BoolArray


def _replayed(
    single: Config, folder: Folder, objective: Objective, length_PS: FloatArray, reference_R: torch.Tensor | None
) -> _Raw:
    order = _order(single, len(length_PS))
    replay = _Replay(objective, torch.from_numpy(length_PS), reference_R)
    steps: list[IntArray] = []
    pairs: list[IntArray] = []
    values: list[tuple[FloatArray, FloatArray, BoolArray]] = []
    for row in store.iter_jsonl(folder.visits):
        try:
            step, found = int(row["step"]), replay.step(row, epochs=order.epochs_done(int(row["step"]) - 1))
        except (KeyError, TypeError, ValueError, IndexError, AssertionError) as error:
            raise StoreError(
                f"{folder.visits} does not have the form that this version of trimtab reads: "
                f"{type(error).__name__}: {error}",
                remedy=f"train again: trimtab train {shlex.quote(str(folder.root))}",
            ) from error
        steps.append(np.full(len(row["pairs"]), step))
        pairs.append(np.array(row["pairs"], dtype=np.int64))
        values.append(found)
    if not steps:
        raise DataError(
            f"{folder.visits} holds no step", remedy=f"train: trimtab train {shlex.quote(str(folder.root))}"
        )
    ratio_WS, pull_WS, active_WS = (np.concatenate(column) for column in zip(*values, strict=True))
    return _Raw(
        single, folder.root, len(steps), np.concatenate(steps), np.concatenate(pairs), ratio_WS, pull_WS, active_WS
    )


class _Replay:
    """The objective's coefficients at every visit, from log-ratios alone."""

    def __init__(self, objective: Objective, length_PS: torch.Tensor, reference_R: torch.Tensor | None) -> None:
        self._objective = objective
        self._length_PS = length_PS
        # a sum that cancels is left out: what was stored is what the objective saw, to the last bit
        self._reference_PS = None
        if objective.batch_coupled and objective.needs_reference and reference_R is not None:
            self._reference_PS = reference_R.reshape(-1, 2)
        self._first_PS: torch.Tensor = torch.full((len(length_PS), 2), torch.nan)

    def step(self, row: dict[str, Any], *, epochs: float) -> tuple[FloatArray, FloatArray, BoolArray]:
        """Log-ratios, pulls in [0, 1] and activity of one batch, each [n, S]."""
        objective, at = self._objective.at(epochs), torch.tensor(row["pairs"])
        ratio_PS = torch.tensor([row["chosen"], row["rejected"]], dtype=torch.float32).T
        held_PS = torch.zeros_like(ratio_PS) if self._reference_PS is None else self._reference_PS[at].float()
        seen = LogRatios(
            policy_chosen=held_PS[:, 0] + ratio_PS[:, 0],
            policy_rejected=held_PS[:, 1] + ratio_PS[:, 1],
            reference_chosen=held_PS[:, 0],
            reference_rejected=held_PS[:, 1],
            chosen_lengths=self._length_PS[at, 0],
            rejected_lengths=self._length_PS[at, 1],
        )
        slope_R = pulling.coefficients(objective, seen)
        if objective.needs_reference:
            pull_PS = pulling.pull(objective, seen, slope_R).reshape(-1, 2)
        else:
            pull_PS = self._against_the_first(slope_R.reshape(-1, 2) * len(at), at)
        active_PS = slope_R.reshape(-1, 2) != 0 if objective.has_dead_zone else pull_PS >= FADED
        return ratio_PS.double().numpy(), pull_PS.double().numpy(), active_PS.numpy()

    def _against_the_first(self, slope_PS: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        """Without a reference there is no pull at the reference: that of the pair's first visit stands for it."""
        known_PS = self._first_PS[at]
        self._first_PS[at] = torch.where(known_PS.isnan(), slope_PS.abs(), known_PS)
        tiny = torch.finfo(torch.float32).tiny
        return (slope_PS.abs() / self._first_PS[at].clamp_min(tiny)).clamp_max(1.0)


def _visits(raw: _Raw, kept_P: IntArray, n_visits: int) -> Visits:
    """The first V visits of the kept pairs as tables, and every single one as a row."""
    place = np.full(int(max(raw.pair_W.max(), kept_P.max(initial=0))) + 1, -1)
    place[kept_P] = np.arange(len(kept_P))
    is_kept_W = place[raw.pair_W] >= 0
    by_pair_W = np.argsort(place[raw.pair_W[is_kept_W]], kind="stable")  # visits of a pair stay in their order
    rows_W = np.flatnonzero(is_kept_W)[by_pair_W]
    counts_P = np.bincount(place[raw.pair_W[rows_W]], minlength=len(kept_P))
    starts_P = np.concatenate([[0], np.cumsum(counts_P)[:-1]])
    at_PV = rows_W[starts_P[:, None] + np.arange(n_visits)[None, :]]
    return Visits(
        seed=raw.single.seed,
        root=raw.root,
        single=raw.single,
        n_steps=raw.n_steps,
        active_PVS=raw.active_WS[at_PV],
        pull_PVS=raw.pull_WS[at_PV],
        ratio_PVS=raw.ratio_WS[at_PV],
        step_W=raw.step_W[rows_W],
        pair_W=place[raw.pair_W[rows_W]],
        active_WS=raw.active_WS[rows_W],
        pull_WS=raw.pull_WS[rows_W],
    )


def _visits_of_all(counts_P: IntArray) -> int:
    """V: as often as nine pairs in ten were visited, and at least once; a part of an epoch is no visit of all."""
    return max(1, int(np.quantile(counts_P, 0.1, method="lower")))


def _order(single: Config, n_pairs: int) -> Order:
    told = single.train
    return Order(n_pairs, told.batch_pairs, told.epochs, single.seed, told.max_steps)
