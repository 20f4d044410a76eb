"""The paper's methods on SmolLM2-135M-Instruct and real pairs: make the runs that are missing, one JSON each.

    python -m experiments.real.runs --model SMOLLM2_FOLDER --shared DIR --work WORK [--minutes N] [--quick]

Each learning rate of a method is tried on one set with one seed; the rate whose held-out accuracy is highest (of equal
ones the smallest) then runs with three seeds on each set. Seeds have training and held-out pairs of their own, the
latter under prompts that nobody trains on. A run's numbers are written into `experiments/real/runs/` when it ends, and
what is there is not run again; `--minutes` starts no run after that time. The methods that matter most come first.

DIR holds `pairs/` and `eval/alpaca_eval/instructions_805.json`. `--quick` is a run of two steps into WORK.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from experiments.real.measures import measure
from experiments.run_sweeps import revision
from trimtab import store

RESULTS = Path(__file__).with_name("runs")
SETS = {
    "ukp-convarg1-strict": "ukp-convarg1-strict/pairs.jsonl",
    "hh-rlhf-harmless": "hh-rlhf-harmless-base-test/test.jsonl.gz",
    "finegrained-rlhf": "finegrained-rlhf-dev/pairs.jsonl",
}
FIRST = ("dpo", "apo_zero", "apo_hinge_zero")
METHODS = (*FIRST, "margin_sigmoid", "apo_hinge_softplus", "dpo_hinge", "aot", "exo_pair")
RATES = (3e-4, 1e-3, 3e-3)
SEEDS = (0, 1, 2)
TUNING_SET = "ukp-convarg1-strict"
LONGEST = 128  # tokens of a prompt, a response


@dataclass(frozen=True, slots=True)
class Size:
    """How much a run trains on and is measured by."""

    train: int = 128
    held_out: int = 96
    unrelated: int = 32
    prompts: int = 64
    answer_tokens: int = 128
    batch: int = 8


@dataclass(frozen=True, slots=True)
class Run:
    """One training run."""

    source: str
    method: str
    rate: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.source}-{self.method}-{self.rate:g}-{self.seed}"


def tuning_runs() -> list[Run]:
    return [Run(TUNING_SET, method, rate, SEEDS[0]) for method in METHODS for rate in RATES]


def tuned_rate(method: str, results: Mapping[Run, Mapping[str, Any]]) -> float | None:
    """None before every rate of the method has been run."""
    trials = [run for run in tuning_runs() if run.method == method]
    if not all(run in results for run in trials):
        return None
    return max(trials, key=lambda run: (results[run]["accuracy"], -run.rate)).rate


def next_run(results: Mapping[Run, Mapping[str, Any]]) -> Run | None:
    """The one to make now: rates of the methods that matter most, then their seeds on every set, then the others."""
    for methods, sources in ((FIRST, list(SETS)), (METHODS[len(FIRST) :], list(SETS)[:2])):
        for run in tuning_runs():
            if run.method in methods and run not in results:
                return run
        rates = {method: tuned_rate(method, results) for method in methods}
        for seed in SEEDS:
            for source in sources:
                for method, rate in rates.items():
                    assert rate is not None
                    if (run := Run(source, method, rate, seed)) not in results:
                        return run
    return None


def read_results(folder: Path = RESULTS) -> dict[Run, dict[str, Any]]:
    """The runs that have ended."""
    trees = [store.read_json(path) for path in sorted(folder.glob("*.json"))]
    return {Run(**tree["run"]): tree for tree in trees}


def main() -> int:
    arguments = _arguments()
    size, results_folder = (Size(16, 8, 4, 2, 8), arguments.work / "quick") if arguments.quick else (Size(), RESULTS)
    results_folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    while run := next_run(read_results(results_folder)):
        if arguments.minutes is not None and time.monotonic() - start > 60 * arguments.minutes:
            return 0
        result = make(run, size, model=arguments.model, shared=arguments.shared, work=arguments.work)
        store.write_text(results_folder / f"{run.name}.json", json.dumps(result) + "\n")
        print(f"{run.name}: accuracy {result['accuracy']:.3f}, {result['seconds']['all']:.0f} s", flush=True)
        if arguments.quick:
            return 0
    return 0


def make(run: Run, size: Size, *, model: Path, shared: Path, work: Path) -> dict[str, Any]:
    """Train, answer, measure. Raises SystemExit with the output of a command that failed."""
    began, start = datetime.now(UTC), time.monotonic()
    data = prepare_data(run, size, model=model, shared=shared, folder=work / f"{run.source}-{run.seed}-{size.train}")
    out = work / run.name
    trimtab(
        "run", "--model", str(model), "--data", str(data / "train.jsonl"), "--data.holdout", "0",
        "--objective", run.method, "--adapter", "lora", "--seed", str(run.seed), "--out", str(out),
        "--train.epochs", "1", "--train.batch-pairs", str(size.batch), "--train.learning-rate", str(run.rate),
        "--benchmark", str(data / "prompts.json"), "--generate.temperature", "0",
        "--generate.max-new-tokens", str(size.answer_tokens), "--judge", "none",
    )  # fmt: skip
    for part in ("held-out", "unrelated"):
        trimtab(
            "prepare", "--model", str(model), "--data", str(data / f"{part}.jsonl"), "--data.holdout", "0",
            "--data.max-rejected", "0.9", "--out", str(data / part),
        )  # fmt: skip
    numbers = measure(out, model=model, held_out=data / "held-out", unrelated=data / "unrelated")
    hardware = store.read_json(out / "versions.json")["hardware"]
    about = {"date": began.date().isoformat(), "revision": revision(), "hardware": hardware, "size": asdict(size)}
    numbers["seconds"]["all"] = round(time.monotonic() - start, 1)
    return {"run": asdict(run), "about": about, **numbers}


def prepare_data(run: Run, size: Size, *, model: Path, shared: Path, folder: Path) -> Path:
    """The seed's own files: train, held-out, unrelated (another set's responses) and the prompts to answer."""
    tokenizer = AutoTokenizer.from_pretrained(model)

    def fits(*texts: str, most: int = LONGEST) -> bool:
        return all(len(tokenizer.encode(text)) <= most for text in texts)

    folder.mkdir(parents=True, exist_ok=True)
    rows = list(_rows(shared / "pairs" / SETS[run.source]))
    prompts = sorted({texts[0] for texts, _ in rows})
    random.Random(0).shuffle(prompts)  # noqa: S311  # a split
    kept = set(prompts[: len(prompts) // 4])
    random.Random(1).shuffle(rows)  # noqa: S311
    for name, n, is_kept in (("train", size.train, False), ("held-out", size.held_out, True)):
        part = (row for texts, row in rows if (texts[0] in kept) == is_kept and fits(*texts))
        store.write_jsonl(folder / f"{name}.jsonl", _take(part, run.seed, n))
    unrelated = store.read_json(next((shared / "pairs" / "llamafactory-dpo-en-demo").glob("*.json")))
    store.write_jsonl(folder / "unrelated.jsonl", unrelated[: 2 * size.unrelated])
    questions = store.read_json(shared / "eval" / "alpaca_eval" / "instructions_805.json")
    short = (row["instruction"] for row in questions if fits(row["instruction"], most=96))
    store.write_json(folder / "prompts.json", [{"instruction": text} for text in _take(short, 0, size.prompts)])
    return folder


def _take(items: Iterator[Any], part: int, n: int) -> list[Any]:
    """The part-th n of them. Raises SystemExit when they are too few."""
    rows = list(islice(items, part * n, (part + 1) * n))
    if len(rows) < n:
        raise SystemExit(f"too few rows: {n} wanted for seed {part}, {len(rows)} left")
    return rows


def _rows(path: Path) -> Iterator[tuple[tuple[str, str, str], dict[str, str]]]:
    """Prompt, chosen and rejected, and the row as trimtab reads it: of a transcript, its last turn is the response."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if "prompt" in row:
                row = {key: row[key] for key in ("prompt", "chosen", "rejected")}
                yield (row["prompt"], row["chosen"], row["rejected"]), row
            else:
                parts = [row[side].rpartition("\n\nAssistant:") for side in ("chosen", "rejected")]
                if parts[0][0] == parts[1][0]:
                    yield (parts[0][0], parts[0][2], parts[1][2]), row


def trimtab(*words: str) -> None:
    """The command line, in a process of its own. Raises SystemExit with its output where it fails."""
    done = subprocess.run([sys.executable, "-m", "trimtab", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"trimtab {' '.join(words)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a transformers folder of SmolLM2-135M-Instruct")
    parser.add_argument("--shared", type=Path, required=True, metavar="DIR")
    parser.add_argument("--work", type=Path, required=True, help="where runs go; they may be deleted afterwards")
    parser.add_argument("--minutes", type=float, help="start no run after so long")
    parser.add_argument("--quick", action="store_true", help="one run of two steps, its numbers into WORK")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
