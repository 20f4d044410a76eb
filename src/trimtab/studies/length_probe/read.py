"""What `trimtab probe` reads of a run: which responses still pulled at which visit, and what is known of each pair.

From files alone: no model is loaded. Coefficients come from the objective by autograd on the log-ratios that
`visits.jsonl` holds, batch by batch, as training had them. Shapes: P pairs, B pairs of a batch, V visits, S = 2 sides
(chosen, rejected), W single visits. Lengths are tokens, log-ratios nats.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trimtab import config, store, windtunnel
from trimtab.analysis.intervals import FloatArray
from trimtab.analysis.length_probe import BoolArray, IntArray, times_to_saturation
from trimtab.config import Config, files
from trimtab.engine import gradient, reference
from trimtab.errors import ConfigError, DataError, StoreError, UserError
from trimtab.objectives import LogRatios, Objective, pull
from trimtab.records import TokenPair
from trimtab.runtime.folder import Folder
from trimtab.runtime.run_identity import reference_key
from trimtab.runtime.run_setup import RunSetup, set_up

WEAK_PULL = 0.05  # of the pull at the reference, below which a response without a dead zone counts as saturated


@dataclass(frozen=True, slots=True)
class VisitRows:
    """Single visits of pairs: step, pair, log-ratios, how hard each side pulled (0 to 1), and whether it was active."""

    step_W: IntArray
    pair_W: IntArray
    ratio_WS: FloatArray
    pull_WS: FloatArray
    active_WS: BoolArray

    def take(self, index: IntArray) -> VisitRows:
        return VisitRows(*(getattr(self, field.name)[index] for field in fields(self)))

    @classmethod
    def join(cls, parts: Sequence[VisitRows]) -> VisitRows:
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


@dataclass(frozen=True, slots=True)
class SeedVisits:
    """One seed: all visits as `rows`, sorted by pair, and the first V of each pair as tables."""

    setup: RunSetup
    n_steps: int
    rows: VisitRows
    active_PVS: FloatArray
    last_pull_PS: FloatArray
    last_ratio_PS: FloatArray


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """A run with all of its seeds. Rows are the pairs that every seed visited V times or more.

    `quality_PS` is the true quality of both responses, known only in the embedded world; `reference_PS` the reference's
    log-probabilities, None where its cache is gone. `pairs_digest` names the training pairs.
    """

    folder: str
    data: str
    objective: Objective
    seeds: tuple[SeedVisits, ...]
    planned_steps: int
    n_left_out: int
    n_visits: int
    length_PS: FloatArray
    prompts_P: tuple[tuple[int, ...], ...]
    quality_PS: FloatArray | None
    reference_PS: FloatArray | None
    pairs_digest: str

    @property
    def seed_numbers(self) -> list[int]:
        return [seed.setup.config.seed for seed in self.seeds]

    @property
    def length_difference_P(self) -> FloatArray:
        """len(chosen) − len(rejected)."""
        difference_P: FloatArray = self.length_PS[:, 0] - self.length_PS[:, 1]
        return difference_P

    @property
    def active_KPVS(self) -> FloatArray:
        """1 where a response was active."""
        return np.array([seed.active_PVS for seed in self.seeds])

    @property
    def times_KPS(self) -> FloatArray:
        """Visits to saturation; V where it never came."""
        return np.array([times_to_saturation(seed.active_PVS > 0) for seed in self.seeds])


def read(run_folder: str) -> TrainedRun:
    """Everything there is. Raises UserError where a file is missing or the seeds did not train on the same pairs."""
    setups = _seed_setups(run_folder)
    for setup in setups:
        _require(setup.folder)
    digests = [store.file_digest(setup.folder.data / "train.jsonl") for setup in setups]
    if len(set(digests)) > 1:
        raise DataError(
            f"the seeds of {run_folder} did not train on the same pairs", remedy="probe each seed's folder alone"
        )
    first = setups[0]
    pairs = first.folder.train_pairs()
    reference_PS, sums_R = _reference(first, pairs)
    length_PS = np.array([(len(p.chosen_ids), len(p.rejected_ids)) for p in pairs], dtype=np.float64)
    rows = [_replay(setup, length_PS, sums_R) for setup in setups]
    counts_P = np.min([np.bincount(seed_rows.pair_W, minlength=len(pairs)) for seed_rows in rows], axis=0)
    # as often as nine pairs in ten were visited, and at least once: a part of an epoch is no visit of all
    n_visits = max(1, int(np.quantile(counts_P, 0.1, method="lower")))
    pairs_P = np.flatnonzero(counts_P >= n_visits)
    return TrainedRun(
        folder=run_folder,
        data=first.config.data.source,
        objective=first.objective,
        seeds=tuple(
            _by_pair(setup, seed_rows, pairs_P, n_pairs=len(pairs), n_visits=n_visits)
            for setup, seed_rows in zip(setups, rows, strict=True)
        ),
        planned_steps=first.order(len(pairs)).steps,
        n_left_out=len(pairs) - len(pairs_P),
        n_visits=n_visits,
        length_PS=length_PS[pairs_P],
        prompts_P=tuple(pairs[i].prompt_ids for i in pairs_P),
        quality_PS=_quality(first, [pairs[i].id for i in pairs_P]),
        reference_PS=None if reference_PS is None else reference_PS[pairs_P],
        pairs_digest=digests[0],
    )


# --- what is there ---------------------------------------------------------------------------------------------------


def _seed_setups(run_folder: str) -> list[RunSetup]:
    """One a seed. A sweep's point may have nothing but the folders of its seeds."""
    root = Path(run_folder)
    if not root.is_dir():
        raise ConfigError(f"no such run folder: {root}", remedy="name the folder that `trimtab run` printed")
    if (root / "config.json").is_file():
        return set_up(_config(root)).each_seed()
    configs = sorted((_config(path.parent) for path in root.glob("seed-*/config.json")), key=lambda entry: entry.seed)
    if not configs:
        raise ConfigError(f"{root} is no run folder: it has no config.json", remedy="name the folder of a run")
    without_seed = [seed_config.model_copy(update={"seed": 0, "out": run_folder}) for seed_config in configs]
    if any(seed_config != without_seed[0] for seed_config in without_seed):
        raise ConfigError(
            f"the runs in {root} differ in more than their seed", remedy="name one of them, or several side by side"
        )
    return [set_up(seed_config) for seed_config in configs]


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


def _quality(setup: RunSetup, ids: Sequence[str]) -> FloatArray | None:
    """[P, S] by the oracle, which `prepare` noted beside every pair of the embedded world; None for other data."""
    if setup.config.data.source != windtunnel.NAME:
        return None
    path = setup.folder.require(setup.folder.data / "pairs.jsonl", "prepare")
    meta = {row["id"]: row["meta"] for row in store.iter_jsonl(path)}
    return np.array([[float(meta[id][f"quality_{side}"]) for side in ("chosen", "rejected")] for id in ids])


def _reference(setup: RunSetup, pairs: Sequence[TokenPair]) -> tuple[FloatArray | None, torch.Tensor | None]:
    """The reference's log-probabilities, plain [P, S] and as the objective weighs them [2P], where they are cached.

    Raises ConfigError where they are gone and the objective cannot be replayed without them.
    """
    objective = setup.objective
    if setup.folder.reference.is_file():
        try:
            rows = reference.read(reference_key(setup), pairs).of_pairs(pairs)
            plain_PS = np.array([float(row.double().sum()) for row in rows]).reshape(-1, 2)
            return plain_PS, gradient.weighted_sums(rows, pairs, objective)
        except (StoreError, UserError, OSError):
            pass  # counts as not known: but for the objectives below, only one row of a table needs it
    if objective.needs_reference and objective.batch_coupled:
        raise ConfigError(
            f"{objective.name} compares pairs with each other by their reference log-probabilities, which are no "
            f"longer in the cache ({store.home() / 'reference'})",
            remedy=f"compute them again: trimtab reference {shlex.quote(str(setup.folder.root))}",
        )
    return None, None


# --- replaying -------------------------------------------------------------------------------------------------------


def _replay(setup: RunSetup, length_PS: FloatArray, reference_R: torch.Tensor | None) -> VisitRows:
    """All visits of one seed in the order in which they came."""
    folder, order = setup.folder, setup.order(len(length_PS))
    replay = _Replay(setup.objective, torch.from_numpy(length_PS), reference_R)
    batches: list[VisitRows] = []
    for row in store.iter_jsonl(folder.visits):
        try:
            batches.append(replay.visit(_Batch.from_json(row), epochs=order.epochs_done(int(row["step"]) - 1)))
        except (KeyError, TypeError, ValueError, IndexError, AssertionError) as error:
            raise StoreError(
                f"{folder.visits} does not have the form that this version of trimtab reads: "
                f"{type(error).__name__}: {error}",
                remedy=f"train again: trimtab train {shlex.quote(str(folder.root))}",
            ) from error
    if not batches:
        raise DataError(
            f"{folder.visits} holds no step", remedy=f"train: trimtab train {shlex.quote(str(folder.root))}"
        )
    return VisitRows.join(batches)


@dataclass(frozen=True, slots=True)
class _Batch:
    """A row of `visits.jsonl`."""

    step: int
    pair_B: torch.Tensor
    ratio_BS: torch.Tensor

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> _Batch:
        ratio_SB = torch.tensor([row["chosen"], row["rejected"]], dtype=torch.float32)
        return cls(int(row["step"]), torch.tensor(row["pairs"]), ratio_SB.T)


class _Replay:
    """The objective's coefficients at every visit, from log-ratios alone."""

    def __init__(self, objective: Objective, length_PS: torch.Tensor, reference_R: torch.Tensor | None) -> None:
        self._objective = objective
        self._length_PS = length_PS
        self._reference_PS = None
        # elsewhere it cancels: left out, what was stored is what the objective saw, to the last bit
        if objective.batch_coupled and objective.needs_reference and reference_R is not None:
            self._reference_PS = reference_R.reshape(-1, 2)
        self._first_PS: torch.Tensor = torch.full((len(length_PS), 2), torch.nan)

    def visit(self, batch: _Batch, *, epochs: float) -> VisitRows:
        objective, at, ratio_BS = self._objective.at(epochs), batch.pair_B, batch.ratio_BS
        start_BS = torch.zeros_like(ratio_BS) if self._reference_PS is None else self._reference_PS[at].float()
        ratios = LogRatios(
            policy_chosen=start_BS[:, 0] + ratio_BS[:, 0],
            policy_rejected=start_BS[:, 1] + ratio_BS[:, 1],
            reference_chosen=start_BS[:, 0],
            reference_rejected=start_BS[:, 1],
            chosen_lengths=self._length_PS[at, 0],
            rejected_lengths=self._length_PS[at, 1],
        )
        slope_R = pull.coefficients(objective, ratios)
        if objective.needs_reference:
            pull_BS = pull.pull(objective, ratios, slope_R).reshape(-1, 2)
        else:
            pull_BS = self._against_first_visit(slope_R.reshape(-1, 2) * len(at), at)
        active_BS = slope_R.reshape(-1, 2) != 0 if objective.has_dead_zone else pull_BS >= WEAK_PULL
        return VisitRows(
            step_W=np.full(len(at), batch.step),
            pair_W=at.numpy(),
            ratio_WS=ratio_BS.double().numpy(),
            pull_WS=pull_BS.double().numpy(),
            active_WS=active_BS.numpy(),
        )

    def _against_first_visit(self, slope_BS: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        """Without a reference there is no pull at the reference: that of the pair's first visit stands for it."""
        first_BS = self._first_PS[at]
        self._first_PS[at] = torch.where(first_BS.isnan(), slope_BS.abs(), first_BS)
        tiny = torch.finfo(torch.float32).tiny
        return (slope_BS.abs() / self._first_PS[at].clamp_min(tiny)).clamp_max(1.0)


def _by_pair(setup: RunSetup, rows: VisitRows, pairs_P: IntArray, *, n_pairs: int, n_visits: int) -> SeedVisits:
    """The visits of the pairs that are probed, sorted by pair and numbered by their place among these."""
    place_N = np.full(n_pairs, -1)
    place_N[pairs_P] = np.arange(len(pairs_P))
    place_W = place_N[rows.pair_W]
    visit_W = np.flatnonzero(place_W >= 0)
    by_pair_W = visit_W[np.argsort(place_W[visit_W], kind="stable")]  # visits of a pair stay in their order
    sorted_rows = replace(rows.take(by_pair_W), pair_W=place_W[by_pair_W])
    starts_P = np.searchsorted(sorted_rows.pair_W, np.arange(len(pairs_P)))
    first_PV = starts_P[:, None] + np.arange(n_visits)
    return SeedVisits(
        setup=setup,
        n_steps=len(np.unique(rows.step_W)),
        rows=sorted_rows,
        active_PVS=sorted_rows.active_WS[first_PV].astype(np.float64),
        last_pull_PS=sorted_rows.pull_WS[first_PV[:, -1]],
        last_ratio_PS=sorted_rows.ratio_WS[first_PV[:, -1]],
    )
