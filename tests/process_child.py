"""One of several processes that train a tiny model: `process_child.py FOLDER PRECISION SIZE SHARD CASE…`.

A case is `full` or `lora`, and one of WAYS, as in `lora-aot`; each trains 20 steps into FOLDER/CASE.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from stage_runs import make_config, make_pairs, prepare, write_model
from trimtab.commands.launch import end_after
from trimtab.config import Config
from trimtab.engine import models
from trimtab.engine.processes import join
from trimtab.progress import SilentReporter
from trimtab.records import TokenPair
from trimtab.runtime import set_up
from trimtab.stages import reference, train

WAYS: dict[str, dict[str, Any]] = {
    "dense": {"objective": {"name": "apo_hinge_zero", "beta": 2.0, "margin": 1.0}, "engine": {"screening": "off"}},
    "screened": {"objective": {"name": "apo_hinge_zero", "beta": 2.0, "margin": 1.0}, "engine": {"screening": "on"}},
    "aot": {"objective": {"name": "aot", "beta": 0.5, "margin": None}},
    "kto": {"objective": {"name": "kto", "beta": 0.5, "margin": None}},
    "odpo": {"objective": {"name": "odpo", "beta": 0.5, "margin": None}},
    "wpo": {"objective": {"name": "wpo", "beta": 0.5, "margin": None}},
}


def config_of(folder: Path, case: str, *, shard: str) -> Config:
    """20 steps of 6 pairs over some epochs, at a rate that empties the dead zone on the way."""
    adapter, way = case.split("-")
    settings = {
        "train": {"epochs": 5, "batch_pairs": 6, "learning_rate": 3e-4, "save_every": 100},
        "adapter": {"kind": "lora", "rank": 4, "alpha": 8.0} if adapter == "lora" else {},
        "objective": WAYS[way]["objective"],
        "engine": {"pack_tokens": 64} | WAYS[way].get("engine", {}) | ({} if shard == "none" else {"shard": shard}),
    }
    return make_config(folder / case, folder.parent / "model", **settings)


def pairs_of(way: str, n: int, *, seed: int = 0, name: str = "rows") -> list[TokenPair]:
    """`n` pairs; with scores for `odpo`; for `kto` half as many, each as a good and a bad row."""
    if way == "kto":
        pairs = make_pairs(n // 2, seed=seed, name=name)
        sides = ((replace(p, id=f"{p.id}/good", rejected_ids=()), replace(p, chosen_ids=())) for p in pairs)
        return [row for rows in sides for row in rows]
    pairs = make_pairs(n, seed=seed, name=name)
    return [replace(p, score_gap=0.25 * (1 + i % 9)) for i, p in enumerate(pairs)] if way == "odpo" else pairs


def main(folder: Path, precision: str, size: int, shard: str, cases: list[str]) -> None:
    load = models.load

    def in_float64(*arguments: Any, **options: Any) -> models.Loaded:
        bundle = load(*arguments, **options)
        bundle.model.double()
        return bundle

    if precision == "float64":
        models.load = in_float64
    torch.set_num_threads(1)
    processes = join(timeout=60.0, device="cpu")
    assert processes.size == size
    with processes.one_message():  # which parts them at the end, as the command line does
        for case in cases:
            config, way = config_of(folder, case, shard=shard), case.split("-")[1]
            setup = set_up(config, processes=processes)
            processes.first(partial(prepare, config, pairs_of(way, 24), pairs_of(way, 4, seed=1, name="held")))
            reference.main(setup, reporter=SilentReporter())
            train.main(setup, reporter=SilentReporter())
        processes.follow()


if __name__ == "__main__":
    if not (Path(sys.argv[1]).parent / "model").exists():
        write_model(Path(sys.argv[1]).parent / "model")
    end_after(partial(main, Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5:]))
