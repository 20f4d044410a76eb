"""What `trimtab calibrate` reads of a run: its held-out pairs, the reward gaps that it recorded, and both of its models
along the held-out responses.

Shapes: P pairs, N tokens of a response.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.nn import Module

from trimtab import config, store
from trimtab.analysis.intervals import FloatArray
from trimtab.analysis.token_calibration import Predictions, TokenTable, tabulate
from trimtab.config import files, merge
from trimtab.engine import models, next_token
from trimtab.engine.next_token import NextToken
from trimtab.engine.scoring import Scorer
from trimtab.errors import ConfigError, DataError
from trimtab.progress import Reporter
from trimtab.records import TokenPair
from trimtab.runtime import memory_fit
from trimtab.runtime.model_loading import checked_scorer, load_unaligned
from trimtab.runtime.run_setup import RunSetup, set_up


@dataclass(frozen=True, slots=True)
class HeldoutRun:
    """A finished run, alone and seed by seed, with the pairs that every seed of it held out."""

    setup: RunSetup
    seed_setups: tuple[RunSetup, ...]
    pairs: tuple[TokenPair, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(setup.config.seed for setup in self.seed_setups)

    @property
    def n_chosen_tokens(self) -> int:
        return sum(len(pair.chosen_ids) for pair in self.pairs)

    @property
    def n_rejected_tokens(self) -> int:
        return sum(len(pair.rejected_ids) for pair in self.pairs)

    @property
    def command(self) -> str:
        return f"trimtab calibrate {shlex.quote(self.setup.config.out)}"


@dataclass(frozen=True, slots=True)
class SeedReadings:
    """One seed on the held-out pairs. Sums are over a response's tokens, in nats; gaps are rewards, in nats.

    `gaps_before` is None where the objective compares with the reference, which is what the untrained model is: every
    gap is then 0. Log-ratios are policy less reference, `divergence_P` is KL(policy ‖ reference) on the chosen side.
    """

    gaps_before_P: FloatArray | None
    gaps_after_P: FloatArray
    reference: TokenTable
    policy: TokenTable
    divergence_P: FloatArray
    rejected_tokens_P: FloatArray
    rejected_ratio_P: FloatArray


def find(run_folder: str, *, trust_remote_code: bool) -> HeldoutRun:
    """The run, without a model loaded. Raises UserError where it is not finished or held nothing out."""
    root = Path(run_folder)
    if not root.is_dir():
        raise ConfigError(f"no such run folder: {root}", remedy="name the folder that `trimtab run` printed")
    if not (root / "config.json").is_file():
        raise ConfigError(f"{root} is no run folder: it has no config.json", remedy="name the folder of a run")
    flags = {"model": {"trust_remote_code": True}} if trust_remote_code else {}
    setup = set_up(config.resolve(merge(files.read_run(root, flags=flags), flags)))
    if setup.objective.on_scores:
        raise ConfigError(
            f"{root} holds a reward model, which predicts no next token",
            remedy="`trimtab report` has the calibration of its rewards",
        )
    if setup.objective.is_unpaired:
        raise ConfigError(
            f"{root} was trained with {setup.objective.name} on single responses, and a reward gap is one of pairs",
            remedy="`trimtab report` has the reliability of their rewards",
        )
    seed_setups = setup.each_seed()
    pairs = [_heldout_pairs(seed_setup) for seed_setup in seed_setups]
    if any(seed_pairs != pairs[0] for seed_pairs in pairs):
        raise DataError(
            f"the seeds of {run_folder} did not hold out the same pairs", remedy="calibrate each seed's folder alone"
        )
    if tools := next((pair.id for pair in pairs[0] if pair.chosen_foreign or pair.rejected_foreign), None):
        raise ConfigError(
            f"{tools} is a held-out response with results of tools in it, which no model predicts",
            remedy="calibrate a run whose held-out responses are single messages (--data.eval)",
        )
    return HeldoutRun(setup, tuple(seed_setups), tuple(pairs[0]))


def _heldout_pairs(setup: RunSetup) -> list[TokenPair]:
    folder, share = setup.folder, setup.config.data.holdout
    again = f"trimtab run {shlex.quote(str(folder.config))}"
    if not folder.model.is_dir() or not folder.heldout.is_file():
        raise ConfigError(f"{folder.root} has no trained model yet", remedy=f"finish it first: {again} --resume")
    folder.require(folder.data / "heldout.jsonl", "prepare")
    if not (pairs := folder.heldout_pairs()):
        more = "" if share == 0 else "whole prompts are held out with all of their pairs: bring more prompts, or "
        new_folder = shlex.quote(f"{folder.root}-heldout")
        raise ConfigError(
            f"{folder.root} held out no pairs (data.holdout {share:g}): there is nothing to calibrate on",
            remedy=f"{more}hold more out: {again} --data.holdout {max(0.1, min(0.5, 2 * share)):g} --out {new_folder}, "
            "or name a file of pairs with --data.eval",
        )
    return pairs


def read(run: HeldoutRun, setup: RunSetup, *, reporter: Reporter) -> SeedReadings:
    """One seed's recorded gaps, and both of its models along the pairs."""
    gaps_before_P, gaps_after_P = _recorded_gaps(run, setup)
    setup.use_threads()
    policy, reference = _scorers(run, setup)
    pack_tokens = memory_fit.pack_tokens(setup, pairs=run.pairs)
    label = "held-out pairs" if len(run.seeds) == 1 else f"held-out pairs, seed {setup.config.seed}"
    with reporter.track(label, total=len(run.pairs), unit="pairs") as advance:
        stream = next_token.read(policy, reference, run.pairs, pack_tokens=pack_tokens, advance=advance)
        readings = sorted(stream, key=lambda reading: reading.index)
    return SeedReadings(
        gaps_before_P=gaps_before_P,
        gaps_after_P=gaps_after_P,
        reference=tabulate(_predictions(reading.reference) for reading in readings),
        policy=tabulate(_predictions(reading.policy) for reading in readings),
        divergence_P=np.array([_sum(reading.divergence_N) for reading in readings]),
        rejected_tokens_P=np.array([float(len(reading.rejected_policy_N)) for reading in readings]),
        rejected_ratio_P=np.array([_sum(r.rejected_policy_N.double() - r.rejected_reference_N) for r in readings]),
    )


def _scorers(run: HeldoutRun, setup: RunSetup) -> tuple[Scorer, Scorer]:
    """Policy and reference: one set of weights where an adapter tells them apart, else two."""

    def scorer(model: Module) -> Scorer:
        return checked_scorer(model, setup, pairs=run.pairs)

    base, folder = load_unaligned(setup).model, setup.folder.intact(setup.folder.model)
    if setup.config.adapter.kind != "none":
        policy = scorer(next_token.with_adapter(base, folder))
        return policy, policy
    loaded = models.load(
        str(folder),
        dtype=setup.precision,
        device=setup.config.engine.device,
        trust_remote_code=setup.config.model.trust_remote_code,
        offline=True,
    )
    return scorer(loaded.model), scorer(base)


def _recorded_gaps(run: HeldoutRun, setup: RunSetup) -> tuple[FloatArray | None, FloatArray]:
    """Reward gaps in the order of the pairs; None before training where they are 0 by construction."""
    folder = setup.folder
    record = store.read_json(folder.intact(folder.heldout))
    if record["after"] is None or record["ids"] != [pair.id for pair in run.pairs]:
        raise DataError(
            f"{folder.heldout} does not speak of the pairs in {folder.data / 'heldout.jsonl'}",
            remedy=f"train again: trimtab train {shlex.quote(str(folder.root))}",
        )
    by_construction = setup.objective.needs_reference and setup.begins_at_reference
    before = None if by_construction else np.array(record["before"]["reward_gaps"], dtype=np.float64)
    return before, np.array(record["after"]["reward_gaps"], dtype=np.float64)


def _predictions(values: NextToken) -> Predictions:
    arrays = (values.logp_N, values.confidence_N, values.right_N, values.entropy_N)
    return Predictions(*(array.double().numpy() for array in arrays))


def _sum(values_N: Tensor) -> float:
    return float(values_N.double().sum())
