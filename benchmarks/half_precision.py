"""Does training in mixed precision end where training in fp32 ends? Held-out accuracy, pair by pair, of both.

    .venv/bin/python benchmarks/half_precision.py --model SMOLLM2_FOLDER --pairs PAIRS_FOLDER --work FOLDER
    .venv/bin/python benchmarks/half_precision.py --table

Two sets of real pairs, three seeds, 100 LoRA steps of 4 pairs by `trimtab run`, once in each precision; each seed has
training and held-out pairs of its own (held-out ones under prompts that nobody trains on). Responses are cut at 16
tokens and prompts at 64, so that twelve runs take a busy core an hour or two. The held-out pairs are scored in the
precision of the run. One JSON a run, written when it ends into `half-precision/`; what is there is not run again.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import machine

HERE = Path(__file__).parent
RESULTS = HERE / "half-precision"
SETS = {
    "ukp-convarg1-strict": "ukp-convarg1-strict/pairs.jsonl",
    "hh-rlhf-harmless": "hh-rlhf-harmless-base-test/test.jsonl.gz",
}
PRECISIONS = ("float32", "mixed")
SEEDS = (0, 1, 2)
TRAIN, HELD_OUT, STEPS, BATCH, RATE = 440, 180, 100, 4, 1e-4
LENGTHS = ("--data.max-prompt-tokens", "64", "--data.max-response-tokens", "16", "--data.max-rejected", "0.9")


@dataclass(frozen=True)
class Run:
    """One training run."""

    source: str
    precision: str
    seed: int

    @property
    def result(self) -> Path:
        return RESULTS / f"{self.source}-{self.seed}-{self.precision}.json"


def main() -> int:
    told = _arguments()
    if told.table:
        print(table())
        return 0
    RESULTS.mkdir(exist_ok=True)
    os.environ["TRIMTAB_HOME"] = str(told.work / "home")
    # both precisions of a seed together, so that what is there when time runs out can be compared
    runs = [Run(source, precision, seed) for seed in SEEDS for source in SETS for precision in PRECISIONS]
    for run in runs:
        if not run.result.is_file():
            result = measure(run, model=told.model, pairs=told.pairs, work=told.work)
            run.result.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            print(run.result.name, result["accuracy"], f"{result['seconds']:.0f} s", flush=True)
    return 0


def measure(run: Run, *, model: Path, pairs: Path, work: Path) -> dict[str, Any]:
    """Train, score, and what came out."""
    began, commit = datetime.now(UTC), machine.commit()
    folder = work / f"{run.source}-{run.seed}"
    train, held_out = split(run, pairs, folder)
    out = folder / run.precision
    words = ["--model", str(model), "--seed", str(run.seed), "--engine.dtype", run.precision, *LENGTHS]
    start = time.monotonic()
    _trimtab(
        "run", *words, "--data", str(train), "--data.holdout", "0", "--adapter", "lora", "--out", str(out),
        "--train.max-steps", str(STEPS), "--train.batch-pairs", str(BATCH), "--train.learning-rate", str(RATE),
    )  # fmt: skip
    seconds = time.monotonic() - start
    prepared = folder / f"held-out-{run.precision}"
    _trimtab("prepare", *words, "--data", str(held_out), "--data.holdout", "0", "--out", str(prepared))
    gaps = score(run.precision, model=model, adapter=out / "model", prepared=prepared)
    steps = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return {
        "set": run.source,
        "seed": run.seed,
        "precision": run.precision,
        "machine": machine.about("half_precision.py", began, commit, threads=1)["machine"],
        "commit": commit,
        "steps": len(steps),
        "seconds": seconds,
        "train_seconds": steps[-1]["seconds"],
        "accuracy": sum(gap > 0 for gap in gaps.values()) / len(gaps),
        "reward_gaps": {name: float(f"{gap:.5g}") for name, gap in gaps.items()},
    }


def split(run: Run, pairs: Path, folder: Path) -> tuple[Path, Path]:
    """The seed's own pairs: files to train on and to hold out."""
    rows = list(_rows(pairs / SETS[run.source]))
    prompts = sorted({row["prompt"] for row in rows})
    random.Random(0).shuffle(prompts)
    kept = set(prompts[: len(prompts) // 4])
    random.Random(1).shuffle(rows)
    files = []
    for name, n, held in (("train", TRAIN, False), ("held-out", HELD_OUT, True)):
        part = [row for row in rows if (row["prompt"] in kept) == held][run.seed * n : (run.seed + 1) * n]
        assert len(part) == n, f"{run.source} has too few pairs"
        files.append(folder / f"{name}.jsonl")
        folder.mkdir(parents=True, exist_ok=True)
        files[-1].write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
    return files[0], files[1]


def _rows(path: Path) -> Iterator[dict[str, str]]:
    """Prompt, chosen, rejected; of a transcript, its last turn is the response."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if "prompt" in row:
                yield {key: row[key] for key in ("prompt", "chosen", "rejected")}
            else:
                yield row | {"prompt": row["chosen"].rpartition("\n\nAssistant:")[0]}


def score(precision: str, *, model: Path, adapter: Path, prepared: Path) -> dict[str, float]:
    """Reward gaps (nats of log-ratio) of the prepared pairs by id, policy and reference in the run's precision."""
    import torch

    from trimtab import objectives
    from trimtab.engine import evaluation, models, next_token, trainable
    from trimtab.engine.scoring import Scorer
    from trimtab.runtime.folder import Folder

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    pairs = Folder(prepared).train_pairs()
    base = models.load(str(model), dtype=precision, device="cpu", offline=True).model  # type: ignore[arg-type]
    policy = next_token.with_adapter(base, adapter)
    scorer, objective = Scorer(policy, mixed=precision == "mixed"), objectives.make("dpo", beta=1.0)
    policy_R = evaluation.score(scorer, pairs, objective=objective, pack_tokens=2048)
    with trainable.reference_mode(policy):
        reference_R = evaluation.score(scorer, pairs, objective=objective, pack_tokens=2048)
    gap_P = objective.reward_gap(evaluation.log_ratios(policy_R, reference_R, pairs))
    return {pair.id.rpartition("/")[-1]: float(gap) for pair, gap in zip(pairs, gap_P, strict=True)}


def _trimtab(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "trimtab", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"trimtab {' '.join(words)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")


def table() -> str:
    """Accuracies run by run, and the paired difference over all held-out pairs that both precisions have."""
    lines, differences = [], []
    for source in SETS:
        for seed in SEEDS:
            of = {p: Run(source, p, seed).result for p in PRECISIONS}
            if not all(path.is_file() for path in of.values()):
                continue
            fp32, mixed = (json.loads(of[p].read_text(encoding="utf-8")) for p in PRECISIONS)
            names = fp32["reward_gaps"].keys() & mixed["reward_gaps"].keys()
            pairs = [(fp32["reward_gaps"][name], mixed["reward_gaps"][name]) for name in sorted(names)]
            differences += [(b > 0) - (a > 0) for a, b in pairs]
            lines.append(
                f"{source:22} seed {seed}  {len(pairs):4} pairs  fp32 {100 * fp32['accuracy']:5.1f} %  "
                f"mixed {100 * mixed['accuracy']:5.1f} %  other sign: {sum((a > 0) != (b > 0) for a, b in pairs)}  "
                f"train seconds {fp32['train_seconds']:.0f} and {mixed['train_seconds']:.0f}"
            )
    n = len(differences)
    if n > 1:
        mean = sum(differences) / n
        error = math.sqrt(sum((d - mean) ** 2 for d in differences) / (n - 1) / n)
        lines.append(f"mixed − fp32 over {n} pairs: {100 * mean:+.2f} points, 95 % interval ± {196 * error:.2f}")
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a transformers folder of SmolLM2-135M-Instruct")
    parser.add_argument("--pairs", type=Path, help="the folder of the two sets")
    parser.add_argument("--work", type=Path, help="where runs and caches go")
    parser.add_argument("--table", action="store_true", help="print what is there")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
