"""Calibration before and after alignment, on the pairs that a run held out: `calibration.json`, `calibration.html`.

Three questions. Does the reward gap mean what it says: is σ(gap) the share of pairs that it gets right? Is the model as
sure of the next token as it is right? And how far did it go from where it started?
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trimtab import config, objectives, store
from trimtab.analysis.intervals import FloatArray
from trimtab.analysis.token_calibration import tabulate
from trimtab.config import Config, files, merge
from trimtab.engine import calibrating, models
from trimtab.engine.calibrating import NextToken, Reading
from trimtab.engine.scoring import Scorer
from trimtab.errors import ConfigError, DataError
from trimtab.progress import Reporter
from trimtab.records import TokenPair
from trimtab.reporting import render
from trimtab.runtime import policy
from trimtab.runtime.folder import Folder, one_a_seed
from trimtab.studies.calibration import page as calibration_page
from trimtab.studies.calibration.numbers import Seed, measured
from trimtab.version import __version__

FORMAT = 1


def main(run_folder: str, *, reporter: Reporter, trust_remote_code: bool = False) -> dict[str, Any]:
    """Measure, write both files into the run folder, and return what `calibration.json` holds."""
    told = _config_of(run_folder, trust_remote_code=trust_remote_code)
    singles = one_a_seed(told)
    pairs = [_heldout_pairs(single) for single in singles]  # what is missing is said before anything is loaded
    if any(other != pairs[0] for other in pairs):
        raise DataError(
            f"the seeds of {run_folder} did not hold out the same pairs", remedy="calibrate each seed's folder alone"
        )
    root = Folder.of(told).root
    with store.locked(root):
        numbers = _numbers(told, [_measure(single, pairs[0], reporter=reporter) for single in singles], pairs[0])
        store.write_json(root / "calibration.json", numbers)
        page = render.html(calibration_page.page(numbers), template="calibration.html.j2")
        store.write_text(root / "calibration.html", page)
    reporter.say(f"calibration: {root / 'calibration.html'}")
    return numbers


def lines(told: dict[str, Any]) -> list[str]:
    """The measurement for a terminal."""
    return calibration_page.lines(told)


# --- what is there ---------------------------------------------------------------------------------------------------


def _config_of(run_folder: str, *, trust_remote_code: bool) -> Config:
    flags = {"model": {"trust_remote_code": True}} if trust_remote_code else {}
    root = Path(run_folder)
    if not root.is_dir():
        raise ConfigError(f"no such run folder: {root}", remedy="name the folder that `trimtab run` printed")
    if not (root / "config.json").is_file():
        raise ConfigError(f"{root} is no run folder: it has no config.json", remedy="name the folder of a run")
    return config.resolve(merge(files.read_run(root, flags=flags), flags))


def _heldout_pairs(single: Config) -> list[TokenPair]:
    folder = Folder.of(single)
    again = f"trimtab run {shlex.quote(str(folder.config))}"
    if not folder.model.is_dir() or not folder.heldout.is_file():
        raise ConfigError(f"{folder.root} has no trained model yet", remedy=f"finish it first: {again} --resume")
    path = folder.require(folder.data / "heldout.jsonl", "prepare")
    pairs = policy.read_pairs(path)
    if not pairs:
        share = single.data.holdout
        wanted = "" if share == 0 else "whole prompts are held out with all of their pairs: bring more prompts, or "
        elsewhere = shlex.quote(f"{folder.root}-heldout")
        raise ConfigError(
            f"{folder.root} held out no pairs (data.holdout {share:g}): there is nothing to calibrate on",
            remedy=f"{wanted}hold more out: {again} --data.holdout {max(0.1, min(0.5, 2 * share)):g} --out {elsewhere}",
        )
    return pairs


# --- measuring -------------------------------------------------------------------------------------------------------


def _measure(single: Config, pairs: Sequence[TokenPair], *, reporter: Reporter) -> Seed:
    folder = Folder.of(single)
    policy.use_threads(single)
    aligned, unaligned = _models(single, pairs)
    tokens = policy.pack_tokens(single, pairs=pairs)
    named = "held-out pairs" if single.seeds == 1 else f"held-out pairs, seed {single.seed}"
    with reporter.track(named, total=len(pairs), unit="pairs") as advance:
        found = calibrating.read(aligned, unaligned, pairs, pack_tokens=tokens, advance=advance)
        readings = sorted(found, key=lambda one: one.index)
    before, after = _gaps(single, folder, pairs)
    return Seed(
        seed=single.seed,
        gaps_before_P=before,
        gaps_after_P=after,
        unaligned=tabulate(_values(one.unaligned) for one in readings),
        aligned=tabulate(_values(one.aligned) for one in readings),
        divergence_P=np.array([float(one.divergence_N.double().sum()) for one in readings]),
        rejected_tokens_P=np.array([float(len(one.rejected_aligned_N)) for one in readings]),
        rejected_ratio_P=np.array([_rejected_ratio(one) for one in readings]),
    )


def _models(single: Config, pairs: Sequence[TokenPair]) -> tuple[Scorer, Scorer]:
    """The aligned and the unaligned model: one set of weights where an adapter tells them apart, else two."""
    base, folder = policy.load(single).model, Folder.of(single).intact(Folder.of(single).model)
    packed = single.engine.packed
    if single.adapter.kind != "none":
        own = policy.scorer(calibrating.adapted(base, folder), packed=packed, checkpointing="off", pairs=pairs)
        return own, own
    trained = models.load(
        str(folder),
        dtype=single.engine.dtype,
        device=single.engine.device,
        trust_remote_code=single.model.trust_remote_code,
        offline=True,
    )
    aligned, unaligned = (
        policy.scorer(model, packed=packed, checkpointing="off", pairs=pairs) for model in (trained.model, base)
    )
    return aligned, unaligned


def _gaps(single: Config, folder: Folder, pairs: Sequence[TokenPair]) -> tuple[FloatArray | None, FloatArray]:
    """Reward gaps as the run recorded them, in the order of the pairs; None before where they are 0 by construction."""
    told = store.read_json(folder.intact(folder.heldout))
    recorded = told["after"]
    if recorded is None or told["ids"] != [pair.id for pair in pairs]:
        raise DataError(
            f"{folder.heldout} does not speak of the pairs in {folder.data / 'heldout.jsonl'}",
            remedy=f"train again: trimtab train {shlex.quote(str(folder.root))}",
        )
    objective = objectives.make(single.objective.name, **single.objective.parameters())
    before = None if objective.needs_reference else np.array(told["before"]["reward_gaps"], dtype=np.float64)
    return before, np.array(recorded["reward_gaps"], dtype=np.float64)


def _values(one: NextToken) -> tuple[Any, Any, Any, Any]:
    return one.logp_N.numpy(), one.confidence_N.numpy(), one.right_N.numpy(), one.entropy_N.numpy()


def _rejected_ratio(one: Reading) -> float:
    return float((one.rejected_aligned_N.double() - one.rejected_unaligned_N.double()).sum())


def _numbers(told: Config, runs: Sequence[Seed], pairs: Sequence[TokenPair]) -> dict[str, Any]:
    objective = objectives.make(told.objective.name, **told.objective.parameters())
    numbers: dict[str, Any] = {
        "format": FORMAT,
        "trimtab": __version__,
        "model": told.model.name,
        "adapter": told.adapter.kind,
        "data": told.data.source,
        "objective": {"name": objective.name} | objective.parameters(),
        "seeds": [run.seed for run in runs],
        "n_pairs": len(pairs),
        "n_tokens": {
            "chosen": sum(len(pair.chosen_ids) for pair in pairs),
            "rejected": sum(len(pair.rejected_ids) for pair in pairs),
        },
        **measured(runs),
        "by_seed": [{"seed": run.seed} | measured([run]) for run in runs] if len(runs) > 1 else [],
        "command": f"trimtab calibrate {shlex.quote(told.out)}",
    }
    return numbers | {"headline": calibration_page.headline(numbers)}
