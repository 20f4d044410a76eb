"""trimtab against TRL on one machine in one run, taking turns: seconds a pair, memory, share of the machine's speed.

    .venv/bin/python benchmarks/bench.py --peer-python .venv-bench/bin/python

Every contender stays warm in a process of its own (`worker.py`) and trains on the same pairs. In the first repeat all
of TRL's settings run and the fastest stays; the order turns from repeat to repeat. Ratios are taken within a repeat.
Writes results as JSON, and the table that `table.py` makes of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import startup
import table
from workload import LENGTHS, SHAPES, make_pairs

HERE = Path(__file__).parent
# best of {checkpointing on, off} × {batch} with a cached reference
TRL_SETTINGS = {
    "TRL, checkpointing, batch 1": ["--cached", "--checkpointing", "--batch", "1"],
    "TRL, no checkpointing, batch 1": ["--cached", "--batch", "1"],
    "TRL, checkpointing, batch 4": ["--cached", "--checkpointing", "--batch", "4"],
    "TRL, no checkpointing, batch 4": ["--cached", "--batch", "4"],
    "TRL's defaults (reference not cached, checkpointing, batch 8)": ["--checkpointing", "--batch", "8"],
}
ATTEMPTS = 2
DENSE, LEAN = "trimtab, dense", "trimtab, dense, one pair a pack"


@dataclass
class Worker:
    """A contender's process."""

    process: subprocess.Popen[str]
    ready: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def start(cls, python: str, script: str, arguments: list[str], told: argparse.Namespace, log: Path) -> Worker:
        common = ["--shape", told.shape, "--lengths", told.lengths, "--pairs", str(told.pairs)]
        command = [python, str(HERE / script), *common, "--threads", str(told.threads), *arguments]
        with log.open("a") as stderr:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True, env=_environment(told)
            )
        worker = cls(process)
        worker.ready = worker._answer()
        return worker

    def order(self, **order: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def stop(self) -> None:
        self.process.communicate()  # closes its stdin, which ends it

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{' '.join(map(str, self.process.args))} ended; see the log beside the results")
        return json.loads(line)


@dataclass(frozen=True)
class Turn:
    """One contender: who is asked, and for what."""

    name: str
    worker: Worker
    order: dict[str, Any]


class Bench:
    """Takes the measurements; `samples` has one row each."""

    def __init__(self, told: argparse.Namespace, log: Path) -> None:
        self.told, self.log = told, log
        self.samples: list[dict[str, Any]] = []
        self.best: Turn | None = None

    def run(self) -> Iterator[int]:
        """Repeat after repeat; what is measured so far is in `samples`."""
        speed = Worker.start(sys.executable, "trimtab_worker.py", [], self.told, self.log)
        lean = Worker.start(sys.executable, "trimtab_worker.py", ["--pack-tokens", "1"], self.told, self.log)
        for repeat in range(self.told.repeats):
            self.samples.append({"repeat": repeat, "contender": "matmul", **speed.order(do="matmul")})
            turns = [*self._ours(speed, lean, repeat), *([self.best] if self.best else [])]
            at = repeat % len(turns) * 3
            for turn in turns[at % len(turns) :] + turns[: at % len(turns)]:
                self._take(turn, repeat)
            if repeat == 0:
                self._survey()
            yield repeat + 1
        for worker in (speed, lean, *([self.best.worker] if self.best else [])):
            worker.stop()

    def _ours(self, speed: Worker, lean: Worker, repeat: int) -> list[Turn]:
        def turn(name: str, worker: Worker, *, rate: float, screening: bool, side: str = "both") -> Turn:
            return Turn(name, worker, {"do": "train", "rate": rate, "screening": screening, "side": side})

        return [
            turn(DENSE, speed, rate=1.0, screening=False),
            *([turn(LEAN, lean, rate=1.0, screening=False)] if repeat == 0 else []),  # for its memory
            *[turn(f"trimtab, screened, {r:g} active", speed, rate=r, screening=True) for r in self.told.rates],
            turn("trimtab, screened, chosen active, rejected not", speed, rate=1.0, screening=True, side="chosen"),
        ]

    def _survey(self) -> None:
        """Every TRL setting once; the fastest keeps its process for the repeats to come."""
        for name in list(TRL_SETTINGS)[: self.told.trl]:
            worker = Worker.start(self.told.peer_python, "trl_worker.py", TRL_SETTINGS[name], self.told, self.log)
            turn = Turn(name, worker, {"do": "train"})
            seconds = self._take(turn, 0)
            beaten = turn
            if self.best is None or seconds < self._seconds(self.best):
                beaten, self.best = self.best, turn
            if beaten is not None:
                beaten.worker.stop()

    def _seconds(self, turn: Turn) -> float:
        return [row["seconds"] for row in self.samples if row["contender"] == turn.name][-1]

    def _take(self, turn: Turn, repeat: int) -> float:
        """One measurement; once more where other work took the processor away, and both are kept."""
        for _ in range(ATTEMPTS):
            answer = turn.worker.order(**turn.order)
            ready = turn.worker.ready
            above = answer["peak"] - ready["before"] - ready["held"]
            row = {"repeat": repeat, "contender": turn.name, **answer, "above": above}
            self.samples.append(row)
            self._say(row)
            if not table.is_disturbed(row, self.told.threads):
                break
        return float(answer["seconds"])

    def _say(self, row: dict[str, Any]) -> None:
        busy = row["cpu"] / row["seconds"] / self.told.threads
        told = f"{row['seconds']:.2f} s, {busy:.0%} busy, {row['peak'] / 1e9:.2f} GB"
        print(f"{row['repeat']} {row['contender']}: {told}", flush=True)


def main() -> None:
    told = _arguments()
    told.out.mkdir(parents=True, exist_ok=True)
    log = told.out / "workers.log"
    log.unlink(missing_ok=True)
    shape = SHAPES[told.shape]
    pairs = make_pairs(told.pairs, lengths=told.lengths, vocabulary=shape.vocabulary)
    bench = Bench(told, log)
    began = datetime.now(UTC)
    commit = _commit()
    started = {} if told.no_startup else startup.measure(told.shape, pairs, environment=_environment(told))
    for done in bench.run():
        results = _results(told, began, commit, done, started, bench.samples)
        (told.out / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        (told.out / "RESULTS.md").write_text(table.text(results), encoding="utf-8")
    print("\n" + table.text(results))


def _results(
    told: argparse.Namespace,
    began: datetime,
    commit: str,
    done: int,
    started: dict[str, Any],
    samples: list[dict[str, Any]],
) -> dict[str, Any]:
    shape = SHAPES[told.shape]
    pairs = make_pairs(told.pairs, lengths=told.lengths, vocabulary=shape.vocabulary)
    settings = {name: value for name, value in vars(told).items() if name not in {"peer_python", "out"}}
    return {
        "about": _about(told, began, commit),
        "settings": settings | {"repeats": done},
        "workload": {
            "shape": asdict(shape),
            "tokens": [sum(len(pair[i]) for pair in pairs) for i in range(3)],
            "training_operations": shape.training_operations(pairs),
        },
        "startup": started,
        "samples": samples,
    }


def _commit() -> str:
    """Of the code that is about to be measured."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=HERE, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S607

    changed = bool(git("status", "--porcelain", "--", "../src"))
    return git("rev-parse", "--short", "HEAD") + (" with changes in src/" if changed else "")


def _about(told: argparse.Namespace, began: datetime, commit: str) -> dict[str, Any]:
    return {
        "date": f"{began:%Y-%m-%d}",
        "minutes": round((datetime.now(UTC) - began).total_seconds() / 60, 1),
        "commit": commit,
        "command": " ".join(["python", "benchmarks/bench.py", *_words()]),
        "machine": f"{_processor()}, {told.threads} threads, {_total_memory():.0f} GB, {platform.system()}",
        "versions": {"ours": _versions(sys.executable), "peer": _versions(told.peer_python)},
    }


def _words() -> list[str]:
    """The arguments, without where this machine keeps its interpreters."""
    words = sys.argv[1:]
    return ["PYTHON" if i and words[i - 1] == "--peer-python" else word for i, word in enumerate(words)]


def _versions(python: str) -> dict[str, str]:
    code = (
        "import json, platform, importlib.metadata as m; v = {'python': platform.python_version()}\n"
        "for n in ('trl', 'torch', 'transformers', 'accelerate', 'trimtab'):\n"
        "    try: v[n] = m.version(n)\n"
        "    except m.PackageNotFoundError: pass\n"
        "print(json.dumps(v))"
    )
    return json.loads(subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout)


def _processor() -> str:
    rows = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((row.partition(":")[2].strip() for row in rows if row.startswith("model name")), platform.machine())


def _total_memory() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def _environment(told: argparse.Namespace) -> dict[str, str]:
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(told.threads),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="trimtab against TRL, in one run on one machine")
    parser.add_argument("--peer-python", required=True, help="the interpreter of an environment with trl 1.16")
    parser.add_argument("--shape", default="60m", choices=SHAPES)
    parser.add_argument("--lengths", default="ultrafeedback", choices=LENGTHS)
    parser.add_argument("--pairs", type=int, default=8, help="pairs an optimizer step; a multiple of TRL's batch")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rates", type=float, nargs="+", default=[1.0, 0.5, 0.3, 0.1], help="active rates, by tokens")
    parser.add_argument("--trl", type=int, default=3, help=f"how many of TRL's {len(TRL_SETTINGS)} settings, in order")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--no-startup", action="store_true", help="leave out --help and the cached reference")
    parser.add_argument("--out", type=Path, default=HERE)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
