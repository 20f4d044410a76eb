"""The paper's methods on SmolLM2-135M-Instruct and real pairs: make the runs that are missing, one JSON each.

    python -m experiments.real.runs --model SMOLLM2_FOLDER --shared DIR --work WORK [--minutes N] [--quick]

Each learning rate of a method is tried on one set with one seed; the rate whose held-out accuracy is highest (of equal
ones the smallest) then runs with three seeds on each set, the three methods that matter most on a third one. Seeds have
training and held-out pairs of their own, the latter under prompts that nobody trains on. When a run ends its numbers
are written into `experiments/real/runs/` and its answers into `answers/` beside it, and what is there is not run again;
`--minutes` starts no run after that time. Rates come first, then the sets that tell most. Several processes with the
same WORK share the runs out.

DIR holds `pairs/` and `eval/alpaca_eval/instructions_805.json`. `--quick` is a run of two steps into WORK.
"""

from __future__ import annotations

import argparse
import fcntl
import gzip
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from experiments.real.measures import PARTS, answer_files, logps, measure
from experiments.real.prompts import N, prompts
from experiments.real.queue import Job, work_off
from experiments.revision import revision
from trimtab import store
from trimtab.records import digest

RESULTS = Path(__file__).with_name("runs")
SETS = {
    "ukp-convarg1-strict": "ukp-convarg1-strict/pairs.jsonl",
    "hh-rlhf-harmless": "hh-rlhf-harmless-base-test/test.jsonl.gz",
    "finegrained-rlhf": "finegrained-rlhf-dev/pairs.jsonl",
}
FIRST = ("dpo", "apo_hinge_zero", "apo_zero")
METHODS = (*FIRST, "margin_sigmoid", "apo_hinge_softplus", "dpo_hinge", "aot", "exo_pair")
METHODS_ON = {"ukp-convarg1-strict": METHODS, "hh-rlhf-harmless": METHODS, "finegrained-rlhf": FIRST}
RATES = (3e-4, 1e-3, 3e-3)
SEEDS = (0, 1, 2)
TUNING_SET = "ukp-convarg1-strict"
MORE_HELD_OUT = {"hh-rlhf-harmless": 216}
"""Pairs a seed, where prompts are so many that training leaves most of them alone: what 96 pairs show is 1.8 times what
312 do, which take about 110 s more a run (LOG.md)."""
LONGEST = 128  # tokens of a prompt, a response
LONGEST_UNRELATED = 256  # of a response of which the log-prob is measured
BEFORE = "before.json"
UNTUNED = "untuned"


@dataclass(frozen=True, slots=True)
class Size:
    """How much a run trains on and is measured by."""

    train: int = 128
    held_out: int = 96
    more_held_out: int = 0
    unrelated: int = 32
    prompts: int = N
    answer_tokens: int = 128
    batch: int = 8


QUICK = Size(train=16, held_out=8, unrelated=4, prompts=2, answer_tokens=8)


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


def missing_runs(results: Mapping[Run, Mapping[str, Any]]) -> Iterator[Run]:
    """In the order to make them: every rate of every method, then a seed of every method, set by set, those with most
    held-out pairs first. The seeds of a method are known when its rates have been run."""
    yield from (run for run in tuning_runs() if run not in results)
    for source in sorted(SETS, key=lambda source: -MORE_HELD_OUT.get(source, 0)):
        rates = {method: tuned_rate(method, results) for method in METHODS_ON[source]}
        for seed in SEEDS:
            runs = (Run(source, method, rate, seed) for method, rate in rates.items() if rate is not None)
            yield from (run for run in runs if run not in results)


def read_results(folder: Path = RESULTS) -> dict[Run, dict[str, Any]]:
    """The runs that have ended."""
    trees = [store.read_json(path) for path in sorted(folder.glob("*.json"))]
    return {Run(**tree["run"]): tree for tree in trees}


def main() -> int:
    arguments = _arguments()
    quick = arguments.work / "quick" / "runs"
    results = quick if arguments.quick else RESULTS

    def missing() -> Iterator[Job]:
        for run in missing_runs(read_results(results)):
            size = QUICK if arguments.quick else Size(more_held_out=MORE_HELD_OUT.get(run.source, 0))
            yield run.name, partial(_make_and_keep, run, size, arguments, results)

    work_off(missing, results=results, work=arguments.work, minutes=arguments.minutes, once=arguments.quick)
    return 0


def _make_and_keep(run: Run, size: Size, arguments: argparse.Namespace, results: Path) -> dict[str, Any]:
    numbers = make(run, size, model=arguments.model, shared=arguments.shared, work=arguments.work)
    numbers["answers"]["untuned"] = _keep_answers(run, work=arguments.work, folder=results.with_name("answers"))
    return numbers


def _keep_answers(run: Run, *, work: Path, folder: Path) -> str:
    """Their texts, for judges to come: of this run, and of the untuned model, under the name that is returned. It
    answers alike in all runs of one kind of processor; what differs elsewhere is kept beside it."""
    before, after = (
        [row["output"] for row in store.read_json(path)] for path in answer_files(work / run.name).values()
    )
    first = folder / f"{UNTUNED}.json"
    is_new = first.exists() and store.read_json(first) != before
    untuned = f"{UNTUNED}-{digest(before)[:8]}" if is_new else UNTUNED
    for name, texts in ((untuned, before), (run.name, after)):
        store.write_text(folder / f"{name}.json", json.dumps(texts, indent=0, ensure_ascii=False) + "\n")
    return untuned


def make(run: Run, size: Size, *, model: Path, shared: Path, work: Path) -> dict[str, Any]:
    """Train, answer, measure. Raises SystemExit with the output of a command that failed."""
    began, start = datetime.now(UTC), time.monotonic()
    data = prepare_data(run, size, model=model, shared=shared, folder=data_folder(run, size, work))
    out = work / run.name
    trimtab(
        "run", "--model", str(model), "--data", str(data / "train.jsonl"), "--data.holdout", "0",
        "--objective", run.method, "--adapter", "lora", "--seed", str(run.seed), "--out", str(out),
        "--train.epochs", "1", "--train.batch-pairs", str(size.batch), "--train.learning-rate", str(run.rate),
        "--engine.dtype", "float32",
        "--benchmark", str(data / "prompts.json"), "--generate.temperature", "0",
        "--generate.max-new-tokens", str(size.answer_tokens), "--judge", "none",
    )  # fmt: skip
    numbers = measure(out, model=model, data=data, before=store.read_json(data / BEFORE))
    about = {"date": began.date().isoformat(), "revision": revision(), **hardware(out), "size": asdict(size)}
    numbers["seconds"]["all"] = round(time.monotonic() - start, 1)
    return {"run": asdict(run), "about": about, **provenance(out), **numbers}


def hardware(run: Path) -> dict[str, Any]:
    return {"hardware": store.read_json(run / "versions.json")["hardware"]}


def provenance(run: Path) -> dict[str, Any]:
    """Configuration without this machine's paths, digests of pairs, tokenizer and weights, versions of packages."""
    config = store.read_json(run / "config.json")
    sections = {name: dict(config[name]) for name in ("data", "objective", "adapter", "train", "engine", "generate")}
    del sections["data"]["source"]
    return {
        "config": sections,
        "digests": store.read_json(run / "training_inputs.json"),
        "packages": store.read_json(run / "versions.json")["packages"],
    }


def data_folder(run: Run, size: Size, work: Path) -> Path:
    """Of a set and a seed."""
    return work / f"{run.source}-{run.seed}-{size.train}-{size.held_out + size.more_held_out}"


def prepare_data(run: Run, size: Size, *, model: Path, shared: Path, folder: Path) -> Path:
    """The seed's own files, made once: train, held-out, unrelated, the prompts to answer, and what the untuned model
    makes of the held-out and the unrelated ones."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / BEFORE).exists():
            _write_data(run, size, model=model, shared=shared, folder=folder)
    return folder


def _write_data(run: Run, size: Size, *, model: Path, shared: Path, folder: Path) -> None:
    write_rows(run, size, model=model, shared=shared, folder=folder)
    for part in PARTS:
        trimtab(
            "prepare", "--model", str(model), "--data", str(folder / f"{part}.jsonl"), "--data.holdout", "0",
            "--data.max-response-tokens", str(LONGEST_UNRELATED), "--data.max-rejected", "0.9",
            "--out", str(folder / part),
        )  # fmt: skip
    store.write_json(folder / BEFORE, {part: logps(model, folder / part).tolist() for part in PARTS})


def write_rows(run: Run, size: Size, *, model: Path, shared: Path, folder: Path) -> None:
    """`train.jsonl` and `held-out.jsonl` share no prompt: a quarter of the prompts is kept for the latter, and what is
    held out beyond that stands under prompts that no seed trains on. `unrelated.jsonl` is another set's instructions
    and answers, each beside a full stop, as a pair has two sides."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = list(_rows(shared / "pairs" / SETS[run.source]))
    distinct = sorted({texts[0] for texts, _ in rows})
    random.Random(0).shuffle(distinct)  # noqa: S311  # a split
    kept = set(distinct[: len(distinct) // 4])
    random.Random(1).shuffle(rows)  # noqa: S311
    fits = _fits([text for texts, _ in rows for text in texts], tokenizer)
    short = [
        (texts[0], row) for (texts, row), *fit in zip(rows, fits[::3], fits[1::3], fits[2::3], strict=True) if all(fit)
    ]
    others = [(prompt, row) for prompt, row in short if prompt not in kept]
    seen = {prompt for prompt, _ in others[: len(SEEDS) * size.train]}
    held_out = _take([row for prompt, row in short if prompt in kept], run.seed, size.held_out)
    held_out += _take([row for prompt, row in others if prompt not in seen], run.seed, size.more_held_out)
    store.write_jsonl(folder / "train.jsonl", _take([row for _, row in others], run.seed, size.train))
    store.write_jsonl(folder / "held-out.jsonl", held_out)
    demo = store.read_json(next((shared / "pairs" / "llamafactory-dpo-en-demo").glob("*.json")))
    firsts = [(row["conversations"][0], row["chosen"]["value"]) for row in demo]
    turns = [(turn["value"], text) for turn, text in firsts if turn["from"] == "human"]
    fits = _fits([prompt for prompt, _ in turns], tokenizer)
    unrelated = [
        {"prompt": prompt, "chosen": text, "rejected": "."}
        for (prompt, text), fit in zip(turns, fits, strict=True)
        if fit
    ]
    store.write_jsonl(folder / "unrelated.jsonl", unrelated[: size.unrelated])
    questions = prompts(shared, tokenizer, size.prompts)
    store.write_json(folder / "prompts.json", [{"instruction": text} for text in questions])


def _fits(texts: Sequence[str], tokenizer: Any) -> list[bool]:
    """Which of them have at most `LONGEST` tokens."""
    return [len(ids) <= LONGEST for ids in tokenizer(list(texts))["input_ids"]]


def _take(items: Sequence[Any], part: int, n: int) -> list[Any]:
    """The part-th n of them. Raises SystemExit when they are too few."""
    rows = list(items[part * n : (part + 1) * n])
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


def parser(description: str | None) -> argparse.ArgumentParser:
    """Where things are, and for how long."""
    words = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--model", type=Path, required=True, help="a transformers folder of SmolLM2-135M-Instruct")
    words.add_argument("--shared", type=Path, required=True, metavar="DIR")
    words.add_argument("--work", type=Path, required=True, help="where runs go; they may be deleted afterwards")
    words.add_argument("--minutes", type=float, help="start no run after so long")
    return words


def _arguments() -> argparse.Namespace:
    words = parser(__doc__)
    words.add_argument("--quick", action="store_true", help="one run of two steps, its numbers into WORK")
    return words.parse_args()


if __name__ == "__main__":
    sys.exit(main())
