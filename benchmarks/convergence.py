"""Time to a held-out reward accuracy with screening off and on: the trajectory is the same, so the figure is time only.

    .venv/bin/python benchmarks/convergence.py                                      the wind tunnel
    .venv/bin/python benchmarks/convergence.py --model FOLDER --pairs-file PAIRS    and a model and pairs of one's own

Every run is `trimtab run` in a process of its own, from the same seed, in turns. Seconds are the run's own training
seconds (`metrics.jsonl`: gradient, clip and update of each step; not loading, checkpoints or evaluation). The accuracy
is that of each checkpoint's weights on the held-out pairs, computed here after the run: outside the timed part, and not
the running accuracy on training pairs, which every epoch after the first has seen before. Whether both ways went the
same path is measured on all metrics and on the final weights, and said. Writes convergence.json and CONVERGENCE.md
(`convergence_table.py`).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import convergence_table
import machine

HERE = Path(__file__).parent
MODES = {
    "dense": ("--engine.screening", "off"),
    "screened": ("--engine.screening", "auto"),
    "shrunk": ("--engine.screening", "auto", "--engine.shrinking", "on"),
}
CHECKPOINTS = 24  # at which the accuracy is looked at
# measurements of speed, not of the path
CLOCK = {"seconds", "tokens_per_second", "peak_memory_bytes", "skipped_backward", "skipped_forward", "promoted"}


@dataclass(frozen=True)
class Task:
    """One configuration, as words of `trimtab run`."""

    name: str
    words: tuple[str, ...]


def main() -> int:
    told = _arguments()
    told.out.mkdir(parents=True, exist_ok=True)
    if told.home is not None:
        os.environ["TRIMTAB_HOME"] = str(told.home)
    began, commit = datetime.now(UTC), machine.commit()
    tasks = []
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for task in _tasks(told, work):
            tasks.append({"task": task.name, "words": _said(task), **_measure(task, told, work / "runs")})
            about = machine.about("convergence.py", began, commit, threads=told.threads)
            results = {"about": about, "seed": told.seed, "repeats": told.repeats, "tasks": tasks}
            (told.out / "convergence.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
            (told.out / "CONVERGENCE.md").write_text(convergence_table.text(results), encoding="utf-8")
    print(convergence_table.text(results))
    return int(any(path["apart"] > convergence_table.SAME for task in tasks for path in task["exact"].values()))


def _tasks(told: argparse.Namespace, work: Path) -> list[Task]:
    epochs = () if told.epochs is None else ("--train.epochs", str(told.epochs))
    tasks = []
    if "windtunnel" in told.tasks:
        unasked = ("--benchmark", "none", "--judge", "none", "--data.holdout", "0.2")
        tasks.append(Task("wind tunnel", (*unasked, *epochs, *told.windtunnel)))
    if told.pairs_file is not None:
        lines = told.pairs_file.read_text(encoding="utf-8").splitlines(keepends=True)
        rows = work / told.pairs_file.name  # every n-th, since rows of one topic stand together
        rows.write_text("".join(lines[:: max(1, len(lines) // told.rows)][: told.rows]), encoding="utf-8")
        name = f"{told.pairs_file.parent.name} with {told.model.name}"
        tasks.append(Task(name, ("--model", str(told.model), "--data", str(rows), *_REAL, *epochs)))
    return tasks


# Pairs of one's own: short enough for small models, and a rate at which a few hundred steps leave the linear regime.
_REAL = (
    *("--data.max-rejected", "1", "--data.holdout", "0.2"),
    *("--data.max-prompt-tokens", "64", "--data.max-response-tokens", "160"),
    *("--objective", "apo_hinge_zero", "--beta", "0.3"),
    *("--train.epochs", "3", "--train.batch-pairs", "16", "--train.learning-rate", "5e-4"),
)


def _said(task: Task) -> str:
    """The command without where this machine keeps its files."""
    hidden = {"--model": "MODEL", "--data": "PAIRS"}
    words = [hidden.get(task.words[i - 1], word) if i else word for i, word in enumerate(task.words)]
    return " ".join(["trimtab run", *words])


def _measure(task: Task, told: argparse.Namespace, runs: Path) -> dict[str, Any]:
    """Rows of every run, the accuracy at its checkpoints, and how far apart the ways came out."""
    taken: list[dict[str, Any]] = []
    accuracy: dict[str, list[tuple[int, float]]] = {}
    path: dict[str, dict[str, float]] = {}
    save_every = _save_every(task, told, runs / "probe")
    for repeat in range(told.repeats):
        for mode in told.modes if repeat % 2 == 0 else told.modes[::-1]:
            out = runs / mode
            shutil.rmtree(out, ignore_errors=True)
            _run(task, told, out, mode, save_every)
            rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
            taken.append({"repeat": repeat, "mode": mode, "rows": rows})
            print(f"{task.name}, {repeat}, {mode}: {rows[-1]['seconds']:.1f} s in {len(rows)} steps", flush=True)
            if repeat == 0:
                accuracy[mode] = _heldout_accuracy(out)
                shutil.rmtree(out / "checkpoints")
                shutil.copytree(out, runs / f"first-{mode}")
    first = {run["mode"]: run["rows"] for run in taken if run["repeat"] == 0}
    for mode in told.modes[1:]:
        path[mode] = _path(runs, told.modes[0], mode, first)
    again = [_without_clock(run["rows"]) == _without_clock(first[run["mode"]]) for run in taken]
    shutil.rmtree(runs)
    return {
        "runs": taken,
        "accuracy": accuracy,
        "repeats_identical": all(again),
        "exact": {mode: found for mode, found in path.items() if mode != "shrunk"},
        "approximate": {mode: found for mode, found in path.items() if mode == "shrunk"},
    }


def _save_every(task: Task, told: argparse.Namespace, out: Path) -> int:
    """Steps between checkpoints. The pairs and the reference are in the cache after this."""
    _trimtab(["prepare", *_words(task, told, out)], told)
    plan = json.loads((out / "plan.json").read_text(encoding="utf-8"))
    return max(1, plan["train"]["steps"] // told.checkpoints)


def _run(task: Task, told: argparse.Namespace, out: Path, mode: str, save_every: int) -> None:
    kept = ("--train.save-every", str(save_every), "--train.keep-checkpoints", "1000")
    _trimtab(["run", *_words(task, told, out), *MODES[mode], *kept], told)


def _words(task: Task, told: argparse.Namespace, out: Path) -> list[str]:
    threads = ("--engine.threads", str(told.threads))
    return [*task.words, *threads, "--seed", str(told.seed), "--out", str(out), "--quiet", "--offline"]


def _trimtab(words: list[str], told: argparse.Namespace) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "trimtab.cli", *words],
        env=machine.environment(told.threads),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"trimtab {' '.join(words)} failed: {done.stderr}")


# --- after a run -----------------------------------------------------------------------------------------------------


def _heldout_accuracy(out: Path) -> list[tuple[int, float]]:
    """(step, share of held-out pairs that the rewards order rightly) at every checkpoint, and before the first step."""
    import torch
    from safetensors.torch import load_file

    from trimtab import config as configuration
    from trimtab.engine import evaluation, reference
    from trimtab.engine.scoring import Scorer
    from trimtab.runtime import set_up
    from trimtab.runtime.model_loading import load_unaligned
    from trimtab.runtime.run_identity import reference_key

    config = configuration.resolve(json.loads((out / "config.json").read_text(encoding="utf-8")))
    setup = set_up(config)
    folder, objective = setup.folder, setup.objective
    pairs = folder.heldout_pairs()
    known = reference.read(reference_key(setup), pairs) if objective.needs_reference else None
    model = load_unaligned(setup).model
    scorer, parameters = Scorer(model, packed=config.engine.packed), dict(model.named_parameters())
    found = []
    for checkpoint in [None, *sorted(folder.checkpoints.glob("step-*"))]:
        if checkpoint is not None:
            with torch.no_grad():
                for name, weights in load_file(checkpoint / "weights.safetensors").items():
                    parameters[name].copy_(weights)
        told = evaluation.heldout(
            scorer, pairs, objective=objective, reference=known, pack_tokens=2048, untrained=checkpoint is None
        )
        assert told is not None, "there are held-out pairs"
        found.append((int(checkpoint.name.removeprefix("step-")) if checkpoint else 0, told["accuracy"]))
    return found


def _path(runs: Path, dense: str, other: str, first: dict[str, Any]) -> dict[str, float]:
    """How far two ways came apart: of the weights, as a share of the way that training went; of every metric, the
    largest difference against that metric's largest value."""
    from safetensors.torch import load_file

    from trimtab import windtunnel

    ends = [load_file(runs / f"first-{mode}" / "model" / "model.safetensors") for mode in (dense, other)]
    told = json.loads((runs / f"first-{dense}" / "config.json").read_text(encoding="utf-8"))["model"]["name"]
    start = load_file((windtunnel.model_folder() if told == "windtunnel" else Path(told)) / "model.safetensors")
    names = [name for name in ends[0] if name in start]

    def distance(a: dict[str, Any], b: dict[str, Any]) -> float:
        return float(sum(float((a[name].double() - b[name].double()).square().sum()) for name in names)) ** 0.5

    worst = 0.0
    for key in _without_clock(first[dense])[0]:
        ours, theirs = ([row[key] for row in first[mode]] for mode in (dense, other))
        largest = max(map(abs, ours)) or 1.0
        worst = max(worst, max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) / largest)
    return {"apart": distance(*ends) / distance(ends[0], start), "metrics": worst}


def _without_clock(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in row.items() if key not in CLOCK and isinstance(value, int | float)}
        for row in rows
    ]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="time to a held-out reward accuracy, screening off and on")
    parser.add_argument("--tasks", nargs="*", default=["windtunnel"], choices=["windtunnel"], help="embedded ones")
    parser.add_argument("--model", type=Path, help="a model folder, for --pairs-file")
    parser.add_argument("--pairs-file", type=Path, help="JSONL of prompt, chosen, rejected")
    parser.add_argument("--rows", type=int, default=400, help="of the pairs' file, spread over it")
    parser.add_argument("--modes", nargs="+", default=["dense", "screened"], choices=list(MODES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=float, help="default: the recipe's three")
    parser.add_argument("--checkpoints", type=int, default=CHECKPOINTS)
    parser.add_argument("--threads", type=int, default=1, help="these models are too small to gain from more")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--home", type=Path, help="the cache of answers and references; default: as trimtab")
    parser.add_argument("--windtunnel", nargs=argparse.REMAINDER, default=(), help="further words for that task, last")
    parser.add_argument("--out", type=Path, default=HERE)
    told = parser.parse_args()
    if (told.model is None) != (told.pairs_file is None):
        parser.error("--model and --pairs-file come together")
    return told


if __name__ == "__main__":
    sys.exit(main())
