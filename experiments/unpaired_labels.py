"""Do single responses with a label teach as much as the pairs that they were taken from?

    python -m experiments.unpaired_labels --runs DIR    make what is missing, one JSON a run, and say what came
    python -m experiments.unpaired_labels               the same of the results that are kept beside this file

In the embedded world, by the recipe of a bare `trimtab run`. Every arm has the same labelled responses and as many of
them in a step (32 pairs, or 64 rows), so as many steps; the unpaired arms do not know which two belong together. The
gain is the true win rate against the unaligned model's answers, by the oracle, less 50 %. Differences are paired by
seed and prompt; the share is the unpaired arm's gain over the paired one's, with an interval over seeds and prompts of
(unpaired gain − 0.9 · paired gain), which is above zero where the share is above 90 %.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import trimtab
from experiments.arms import command
from experiments.measurement import mean
from experiments.words import text_of
from trimtab import store

SHORT = Path(__file__).with_name("unpaired_labels.jsonl")
N_SEEDS, SHARE = 5, 0.9
ROWS = {"batch_pairs": 64}
SIDES = {"before": "baseline", "after": "model"}
ARMS: dict[str, dict[str, Any]] = {
    "pairs": {"objective": {"name": "apo_hinge_zero"}},
    "apo_hinge_zero_unpaired": {"objective": {"name": "apo_hinge_zero_unpaired"}, "train": ROWS},
    "apo_zero_unpaired": {"objective": {"name": "apo_zero_unpaired"}, "train": ROWS},
    "kto": {"objective": {"name": "kto"}, "train": ROWS},
}


def make(folder: Path) -> None:
    """Every run that has no result yet; a stopped one goes on."""
    for seed in range(N_SEEDS):
        for arm, keys in ARMS.items():
            path = folder / f"{arm}-{seed}.json"
            if not path.is_file():
                store.write_json(path, measure(folder, arm, keys, seed))
                print(f"{arm}, seed {seed}", flush=True)


def measure(folder: Path, arm: str, keys: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """One arm with one seed, which also draws the pairs: the oracle's verdict on every prompt, 1 where the aligned
    model wins and ½ for a tie, and mean true scores."""
    out = folder / f"{arm}-{seed}"
    run = trimtab.run(windtunnel={"seed": 100 + seed}, generate={"seed": seed}, seed=seed, out=str(out), **keys)
    verdicts = store.read_json(run.folder / "verdicts" / "windtunnel.oracle.json")
    scores = store.read_json(run.folder / "verdicts" / "windtunnel.scores.json")
    rows = store.read_jsonl(run.folder / "metrics.jsonl")
    return {
        "arm": arm,
        "seed": seed,
        "wins": [verdict["preference"] - 1 for verdict in verdicts],
        "true_score": {side: float(np.mean(scores[name])) for side, name in SIDES.items()},
        "steps": len(rows),
        "skipped_backward": float(np.mean([row["skipped_backward"] for row in rows])),
        "seconds": rows[-1]["seconds"],
    }


def lines(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """The gains by arm, and of the unpaired arms the share of the paired one's, in points with 95 % intervals."""
    gains = {(row["arm"], row["seed"]): 100 * (np.array(row["wins"]) - 0.5) for row in results}
    text = []
    for arm in ARMS:
        seeds = [seed for seed in range(N_SEEDS) if (arm, seed) in gains and ("pairs", seed) in gains]
        if not seeds:
            continue
        gain_KN, paired_KN = (np.array([gains[name, seed] for seed in seeds]) for name in (arm, "pairs"))
        skipped = np.mean([row["skipped_backward"] for row in results if row["arm"] == arm])
        text.append(
            f"{arm}: gain {text_of(mean(gain_KN, unit='points'), with_sign=True)}, {len(seeds)} seeds, "
            f"{skipped:.0%} of response tokens without a backward pass"
        )
        if arm != "pairs":
            beyond = mean(gain_KN - SHARE * paired_KN, unit="points")
            share = gain_KN.mean() / paired_KN.mean()
            text.append(
                f"  {share:.0%} of the pairs' gain; beyond {SHARE:.0%} of it: {text_of(beyond, with_sign=True)}"
            )
    return text


if __name__ == "__main__":
    command(__doc__, make=make, lines=lines, kept=SHORT)
