"""Run folders whose visits were made up, so that the answer of `trimtab probe` is known."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trimtab import config, store

BATCH = 40
REACH = {"apo_hinge_zero": 1 / 0.3, "dpo": 3.7 / 0.3}  # nats at which a response leaves at β = .3 (DPO: of the gap)


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def pairs(n: int, *, seed: int = 0) -> tuple[list[dict[str, Any]], np.ndarray[Any, Any]]:
    """Token pairs with lengths of 4 to 40, and len(chosen) − len(rejected). Every third prompt stands twice."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(4, 41, size=(n, 2))
    found = [
        {
            "id": f"pair-{i}",
            "prompt_ids": [1, 2, 3 + (i - (i % 3 == 2))],
            "chosen_ids": [5] * int(lengths[i, 0]),
            "rejected_ids": [6] * int(lengths[i, 1]),
        }
        for i in range(n)
    ]
    return found, lengths[:, 0] - lengths[:, 1]


def write(
    root: Path,
    *,
    objective: str,
    last_visit: Sequence[int],
    n_visits: int = 3,
    seed: int = 0,
    rows: Sequence[Mapping[str, Any]],
    quality: Sequence[tuple[float, float]] | None = None,
    chosen_leaves: bool = True,
) -> Path:
    """A run in which both responses of pair i (or the rejected one alone) are active up to visit `last_visit[i]` and
    saturated after it."""
    told = {
        "model": {"name": "windtunnel"},
        "data": {"source": "windtunnel" if quality is not None else "made-up.jsonl"},
        "objective": {"name": objective, "beta": 0.3},
        "train": {"epochs": float(n_visits), "batch_pairs": BATCH},
        "benchmark": {"name": "none"},
        "judge": {"name": "none"},
        "seed": seed,
        "out": str(root),
    }
    (root / "data").mkdir(parents=True)
    store.write_json(root / "config.json", config.to_json(config.resolve(told)))
    store.write_jsonl(root / "data" / "train.jsonl", rows)
    if quality is not None:
        meta = [{"quality_chosen": f"{c:.4f}", "quality_rejected": f"{r:.4f}"} for c, r in quality]
        ids = [row["id"] for row in rows]
        store.write_jsonl(root / "data" / "pairs.jsonl", ({"id": i, "meta": m} for i, m in zip(ids, meta, strict=True)))
    rng = np.random.default_rng(seed)
    visits = []
    for epoch in range(1, n_visits + 1):
        order = rng.permutation(len(rows)).tolist()
        for start in range(0, len(rows), BATCH):
            batch = order[start : start + BATCH]
            far = [1.1 * REACH[objective] * (last_visit[i] < epoch) for i in batch]
            visits.append(
                {
                    "step": len(visits) + 1,
                    "pairs": batch,
                    "chosen": [x * chosen_leaves for x in far],
                    "rejected": [-x for x in far],
                }
            )
    store.write_jsonl(root / "visits.jsonl", visits)
    store.write_jsonl(root / "metrics.jsonl", [{"step": row["step"]} for row in visits])
    return root


def leaving(difference: np.ndarray[Any, Any], *, slope: float, seed: int, n_visits: int = 3) -> list[int]:
    """The last active visit of each pair; below 0 the slope lets long-favoured pairs leave early."""
    rng = np.random.default_rng(1000 + seed)
    wanted = rng.normal(1.8, 1.0, len(difference)) + slope * difference / difference.std()
    return np.clip(wanted.round(), 0, n_visits).astype(int).tolist()  # type: ignore[no-any-return]  # numpy's own Any
