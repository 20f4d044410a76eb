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
from trimtab.analysis.length_probe import BoolArray, IntArray
from trimtab.config import Config, files
from trimtab.engine import reference
from trimtab.engine.response_sums import score_gaps, weighted_sums
from trimtab.errors import ConfigError, DataError, StoreError, UserError
from trimtab.objectives import LogRatios, Objective, pull
from trimtab.records import TokenPair
from trimtab.runtime.folder import Folder
from trimtab.runtime.run_identity import reference_key
from trimtab.runtime.run_setup import RunSetup, set_up

WEAK_PULL = 0.05  # of the pull at the reference, below which a response without a dead zone counts as saturated


@dataclass(frozen=True, slots=True)
class Visits:
    """Visits of pairs: step, pair, log-ratios, how hard each side pulled (0 to 1), and whether it was active."""

    step_W: IntArray
    pair_W: IntArray
    ratio_WS: FloatArray
    pull_WS: FloatArray
    active_WS: BoolArray

    def take(self, index: IntArray) -> Visits:
        return Visits(*(getattr(self, field.name)[index] for field in fields(self)))

    @classmethod
    def join(cls, parts: Sequence[Visits]) -> Visits:
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """A run with all of its seeds. Rows are the pairs that every seed visited V times or more.

    `visits` are all visits of these, one set a seed; the arrays hold the first V of each pair. `quality_PS` is the true
    quality of both responses, known only in the embedded world; `reference_PS` the reference's log-probabilities, None
    where its cache is gone. `pairs_digest` names the training pairs.
    """

    folder: str
    setups: tuple[RunSetup, ...]
    n_steps: tuple[int, ...]
    planned_steps: int
    n_left_out: int
    visits: tuple[Visits, ...]
    active_KPVS: FloatArray
    last_pull_KPS: FloatArray
    last_ratio_KPS: FloatArray
    length_PS: FloatArray
    prompts_P: tuple[tuple[int, ...], ...]
    quality_PS: FloatArray | None
    reference_PS: FloatArray | None
    pairs_digest: str

    @property
    def objective(self) -> Objective:
        return self.setups[0].objective

    @property
    def data(self) -> str:
        return self.setups[0].config.data.label

    @property
    def seeds(self) -> list[int]:
        return [setup.config.seed for setup in self.setups]

    @property
    def n_visits(self) -> int:
        return int(self.active_KPVS.shape[2])

    @property
    def length_difference_P(self) -> FloatArray:
        """len(chosen) − len(rejected)."""
        difference_P: FloatArray = self.length_PS[:, 0] - self.length_PS[:, 1]
        return difference_P


def read(run_folder: str) -> TrainedRun:
    """Everything there is. Raises UserError where a file is missing or the seeds did not train on the same pairs."""
    setups = _seed_setups(run_folder)
    if setups[0].objective.is_unpaired:
        raise ConfigError(
            f"{run_folder} was trained with {setups[0].objective.name} on single responses, and the probe asks "
            "what the lengths of a pair do",
            remedy="`trimtab report` has its regime, AUC and shares; `trimtab audit` the label's length bias",
        )
    pairs_digest, first = _pairs_digest(run_folder, setups), setups[0]
    pairs = first.folder.train_pairs()
    reference_PS, sums_R = _reference(first, pairs)
    length_PS = np.array([(len(p.chosen_ids), len(p.rejected_ids)) for p in pairs], dtype=np.float64)
    gaps_P = score_gaps(pairs)
    by_seed = [_replay(setup, length_PS, sums_R, gaps_P) for setup in setups]
    counts_N = np.min([np.bincount(visits.pair_W, minlength=len(pairs)) for visits in by_seed], axis=0)
    # as often as nine pairs in ten were visited, and at least once: a part of an epoch is no visit of all
    n_visits = max(1, int(np.quantile(counts_N, 0.1, method="lower")))
    pairs_P = np.flatnonzero(counts_N >= n_visits)
    of_pairs = [_of_pairs(visits, pairs_P, n_pairs=len(pairs)) for visits in by_seed]
    # sorted by pair, each pair's in their order: V from where the pair's begin
    starts = [np.searchsorted(visits.pair_W, np.arange(len(pairs_P))) for visits in of_pairs]
    tables = [
        visits.take(start_P[:, None] + np.arange(n_visits)) for visits, start_P in zip(of_pairs, starts, strict=True)
    ]
    return TrainedRun(
        folder=run_folder,
        setups=tuple(setups),
        n_steps=tuple(len(np.unique(visits.step_W)) for visits in by_seed),
        planned_steps=first.order(len(pairs)).steps,
        n_left_out=len(pairs) - len(pairs_P),
        visits=tuple(of_pairs),
        active_KPVS=np.array([table.active_WS for table in tables], dtype=np.float64),
        last_pull_KPS=np.array([table.pull_WS[:, -1] for table in tables]),
        last_ratio_KPS=np.array([table.ratio_WS[:, -1] for table in tables]),
        length_PS=length_PS[pairs_P],
        prompts_P=tuple(pairs[i].prompt_ids for i in pairs_P),
        quality_PS=_quality(first, [pairs[i].id for i in pairs_P]),
        reference_PS=None if reference_PS is None else reference_PS[pairs_P],
        pairs_digest=pairs_digest,
    )


def _of_pairs(visits: Visits, pairs_P: IntArray, *, n_pairs: int) -> Visits:
    """Those of some pairs, sorted by pair and numbered by their place among these."""
    place_N = np.full(n_pairs, -1)
    place_N[pairs_P] = np.arange(len(pairs_P))
    place_W = place_N[visits.pair_W]
    rows_W = np.argsort(place_W, kind="stable")[(place_W < 0).sum() :]  # visits of a pair stay in their order
    return replace(visits.take(rows_W), pair_W=place_W[rows_W])


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
    return config.resolve(files.stored_config(root) | {"out": str(root)})  # also where it was moved


def _pairs_digest(run_folder: str, setups: Sequence[RunSetup]) -> str:
    """The digest of the training pairs, which all seeds must share."""
    for setup in setups:
        _require(setup.folder)
    digests = [store.file_digest(setup.folder.data / "train.jsonl") for setup in setups]
    if len(set(digests)) > 1:
        raise DataError(
            f"the seeds of {run_folder} did not train on the same pairs", remedy="probe each seed's folder alone"
        )
    return digests[0]


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
            return plain_PS, weighted_sums(rows, pairs, objective)
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


def _replay(
    setup: RunSetup, length_PS: FloatArray, reference_R: torch.Tensor | None, score_gaps_P: torch.Tensor | None
) -> Visits:
    """All visits of one seed in the order in which they came."""
    folder, order = setup.folder, setup.order(len(length_PS))
    replay = _Replay(setup.objective, torch.from_numpy(length_PS), reference_R, score_gaps_P)
    batches: list[Visits] = []
    for row in store.iter_jsonl(folder.visits):
        try:
            batches.append(replay.visit(row, epochs=order.epochs_done(int(row["step"]) - 1)))
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
    return Visits.join(batches)


class _Replay:
    """The objective's coefficients at every visit, from log-ratios alone."""

    def __init__(
        self,
        objective: Objective,
        length_PS: torch.Tensor,
        reference_R: torch.Tensor | None,
        score_gaps_P: torch.Tensor | None,
    ) -> None:
        self._objective, self._score_gaps_P = objective, score_gaps_P
        self._length_PS = length_PS
        self._reference_PS = None
        # elsewhere it cancels: left out, what was stored is what the objective saw, to the last bit
        if objective.batch_coupled and objective.needs_reference and reference_R is not None:
            self._reference_PS = reference_R.reshape(-1, 2)
        self._first_PS: torch.Tensor = torch.full((len(length_PS), 2), torch.nan)

    def visit(self, row: Mapping[str, Any], *, epochs: float) -> Visits:
        """The batch of one row of `visits.jsonl`."""
        objective, at = self._objective.at(epochs), torch.tensor(row["pairs"])
        ratio_BS = torch.tensor([row["chosen"], row["rejected"]], dtype=torch.float32).T
        start_BS = torch.zeros_like(ratio_BS) if self._reference_PS is None else self._reference_PS[at].float()
        ratios = LogRatios(
            policy_chosen=start_BS[:, 0] + ratio_BS[:, 0],
            policy_rejected=start_BS[:, 1] + ratio_BS[:, 1],
            reference_chosen=start_BS[:, 0],
            reference_rejected=start_BS[:, 1],
            chosen_lengths=self._length_PS[at, 0],
            rejected_lengths=self._length_PS[at, 1],
            score_gaps=None if self._score_gaps_P is None else self._score_gaps_P[at],
        )
        slope_R = pull.coefficients(objective, ratios)
        if objective.needs_reference:
            pull_BS = pull.pull(objective, ratios, slope_R).reshape(-1, 2)
        else:
            pull_BS = self._against_first_visit(slope_R.reshape(-1, 2) * len(at), at)
        active_BS = slope_R.reshape(-1, 2) != 0 if objective.has_dead_zone else pull_BS >= WEAK_PULL
        return Visits(
            step_W=np.full(len(at), int(row["step"])),
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
