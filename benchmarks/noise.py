"""How well each precision knows the log-probability of a real response: against fp32, on real weights.

    .venv/bin/python benchmarks/noise.py --model SMOLLM2_FOLDER --pairs PAIRS_FOLDER/llamafactory-dpo-en-demo

The first 8 pairs whose responses both have 200 to 512 tokens. Every way scores the same 16 responses; `autocast` is
torch's own on the plain model, one response at a time. Beside what was measured stands what the scorer's self-check
makes of three short pairs when a run begins. Writes NOISE.md and noise.json once all ways are there; with `--ways` and
`--work` they may be computed one at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import machine

HERE = Path(__file__).parent
PAIRS, SHORTEST, LONGEST = 8, 200, 512


def main() -> int:
    told = _arguments()
    began, commit = datetime.now(UTC), machine.commit()
    import torch

    threads = int(os.environ.get("OMP_NUM_THREADS", machine.threads_here()))
    torch.set_num_threads(threads)
    told.work.mkdir(parents=True, exist_ok=True)
    pairs = long_pairs(told.model, told.pairs)
    lengths = [len(ids) for pair in pairs for ids in (pair.chosen_ids, pair.rejected_ids)]
    for name in told.ways:
        if not (file := told.work / f"{name}-{commit}.pt").is_file():
            torch.save(WAYS[name](told.model, pairs), file)
    files = {name: told.work / f"{name}-{commit}.pt" for name in WAYS}
    if not all(file.is_file() for file in files.values()):
        return 0  # another call computes the others
    rows = {name: torch.load(file, weights_only=True) for name, file in files.items()}
    exact = rows["float32"]["logps"]
    results = {
        name: {**compared(row["logps"], exact, lengths), "self_check": row["noise"]} for name, row in rows.items()
    }
    about = machine.about("noise.py", began, commit, threads=threads)
    mean = sum(lengths) / len(lengths)
    (HERE / "noise.json").write_text(
        json.dumps({"about": about, "mean_tokens": mean, "precisions": results}, indent=1) + "\n", encoding="utf-8"
    )
    text = "\n".join([*_HEAD, *machine.lines(about), *_table(results, n=len(lengths), mean=mean)])
    (HERE / "NOISE.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


def long_pairs(model: Path, source: Path) -> list[Any]:
    """Tokenised by the model's own template."""
    from trimtab.runtime.folder import Folder

    (data,) = source.glob("*.json")
    with tempfile.TemporaryDirectory() as out:
        words = ["--model", str(model), "--data", str(data), "--data.holdout", "0", "--data.max-rejected", "0.5"]
        subprocess.run([sys.executable, "-m", "trimtab", "prepare", *words, "--out", out], check=True)
        pairs = Folder(Path(out)).train_pairs()
    fits = [p for p in pairs if all(SHORTEST <= len(ids) < LONGEST for ids in (p.chosen_ids, p.rejected_ids))]
    return fits[:PAIRS]


def by_scorer(model: Path, pairs: list[Any], *, precision: str) -> dict[str, Any]:
    """By the engine, in packs; and what its self-check says."""
    from trimtab.engine import models
    from trimtab.engine.packing import Group
    from trimtab.engine.scoring import Scorer

    loaded = models.load(str(model), dtype=precision, device="cpu", offline=True)  # type: ignore[arg-type]
    scorer = Scorer(loaded.model, mixed=precision == "mixed")
    rows = dict(scorer.by_key([Group.of_pair(pair, i) for i, pair in enumerate(pairs)], pack_tokens=2048))
    return {"logps": [rows[key].double() for key in range(2 * len(pairs))], "noise": scorer.noise.per_root_token}


def by_autocast(model: Path, pairs: list[Any]) -> dict[str, Any]:
    """By torch's autocast, as trainers use it."""
    import torch

    from trimtab.engine import models

    loaded = models.load(str(model), dtype="float32", device="cpu", offline=True).model
    logps = []
    for pair in pairs:
        for ids in (pair.chosen_ids, pair.rejected_ids):
            tokens, n = torch.tensor([[*pair.prompt_ids, *ids]]), len(ids)
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                scores = loaded(input_ids=tokens, use_cache=False).logits[0, -n - 1 : -1].log_softmax(-1)
            logps.append(scores.gather(1, torch.tensor(ids)[:, None])[:, 0].double())
    return {"logps": logps, "noise": None}


WAYS: dict[str, Callable[[Path, list[Any]], dict[str, Any]]] = {
    "float32": partial(by_scorer, precision="float32"),
    "mixed": partial(by_scorer, precision="mixed"),
    "bfloat16": partial(by_scorer, precision="bfloat16"),
    "autocast": by_autocast,
}


def compared(logps: list[Any], exact: list[Any], lengths: list[int]) -> dict[str, float]:
    """Of a response's log-probability less that in fp32, nats: standard deviation, largest, mean; a token's root mean
    square, from which `expected` is the standard deviation that independent tokens would give."""
    import torch

    gaps_R = torch.stack([(a - b).sum() for a, b in zip(logps, exact, strict=True)])
    tokens_N = torch.cat([a - b for a, b in zip(logps, exact, strict=True)])
    token = float(tokens_N.square().mean().sqrt())
    return {
        "sd": float(gaps_R.std()),
        "largest": float(gaps_R.abs().max()),
        "mean": float(gaps_R.mean()),
        "token": token,
        "expected": token * (sum(lengths) / len(lengths)) ** 0.5,
    }


_HEAD = ("# Noise of a response's log-probability, by precision", "")


def _table(results: dict[str, Any], *, n: int, mean: float) -> list[str]:
    lines = [
        f"{n} real responses of {mean:.0f} tokens on average, against fp32; nats.",
        "",
        "| precision | sd | largest | mean | a token's | √tokens × it | √tokens × the self-check's |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in results.items():
        if name != "float32":
            check = "–" if row["self_check"] is None else f"{row['self_check'] * mean**0.5:.2f}"
            lines.append(
                f"| {name} | {row['sd']:.2f} | {row['largest']:.2f} | {row['mean']:+.2f} | {row['token']:.4f} | "
                f"{row['expected']:.2f} | {check} |"
            )
    return lines


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a transformers folder of SmolLM2-135M-Instruct")
    parser.add_argument("--pairs", type=Path, required=True, help="the folder of llamafactory-dpo-en-demo")
    parser.add_argument("--ways", nargs="+", choices=tuple(WAYS), default=tuple(WAYS), help="compute these")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "noise", help="where they are kept")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
