"""trimtab against TRL on one machine in one run, taking turns: seconds a pair, memory, share of the machine's speed.

    .venv/bin/python benchmarks/bench.py --peer-python .venv-bench/bin/python

Every contender stays warm in a process of its own (`worker.py`; one process at a time where the shape is too large for
several) and trains on the same pairs. In the first repeat all of TRL's settings run and the fastest stays; the order
turns from repeat to repeat. Ratios are taken within a repeat. Writes `results-SHAPE-LENGTHS.json`, and the page that
`table.py` makes of all such files.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import machine
import startup
import table
from contenders import Contender, EndedError, Processes
from workload import LENGTHS, SHAPES, make_pairs, response_sizes

HERE = Path(__file__).parent
# best of {checkpointing on, off} × {batch} with a cached reference
TRL_SETTINGS = {
    "TRL, checkpointing, batch 1": ("--cached", "--checkpointing", "--batch", "1"),
    "TRL, no checkpointing, batch 1": ("--cached", "--batch", "1"),
    "TRL, checkpointing, batch 4": ("--cached", "--checkpointing", "--batch", "4"),
    "TRL, no checkpointing, batch 4": ("--cached", "--batch", "4"),
    "TRL, checkpointing, batch 8": ("--cached", "--checkpointing", "--batch", "8"),
    "TRL's defaults (reference not cached, checkpointing, batch 8)": ("--checkpointing", "--batch", "8"),
}
USUAL = {
    "pairs": 8,
    "repeats": 3,
    "trl": 3,
    "rates": [1.0, 0.7, 0.5, 0.3, 0.1],
    "wrong_rates": [0.3, 0.1],
    "shrunk_rates": [0.3, 0.1],
}
# minutes a step on a CPU: four responses know few rates
LARGE = {"pairs": 2, "repeats": 2, "trl": 1, "rates": [1.0, 0.5, 0.3], "wrong_rates": [], "shrunk_rates": []}
ATTEMPTS = 2
WRONG = 0.1  # share of the response tokens whose forecast is made wrong
SHRUNK = 0.9  # share of the inactive tokens that shrinking does not compute
PROCESSES = 5  # of contenders that may be warm at one time, each with weights, gradients and moments


class Bench:
    """Takes the measurements; `samples` has one row each."""

    def __init__(self, told: argparse.Namespace, log: Path) -> None:
        self.told = told
        self.samples: list[dict[str, Any]] = []
        self.best: Contender | None = None
        held = 16 * SHAPES[told.shape].parameters * PROCESSES
        self.processes = Processes(threads=told.threads, log=log, one_at_a_time=held > machine.total_memory() / 2)

    def run(self) -> Iterator[int]:
        """Repeat after repeat; what is measured so far is in `samples`."""
        ours = self._ours()
        for repeat in range(self.told.repeats):
            self.samples.append(
                {"repeat": repeat, "contender": "matmul", **self.processes.of(ours[0]).order(do="matmul")}
            )
            turns = [*ours, *([self.best] if self.best else [])]
            at = repeat * 3 % len(turns)
            for turn in turns[at:] + turns[:at]:
                self._take(turn, repeat)
            if repeat == 0:
                for lean in self._lean():
                    self._take(lean, repeat)
                    self.processes.stop(lean)
                self._survey()
            yield repeat + 1
        self.processes.stop()

    def _ours(self) -> list[Contender]:
        told, half = self.told, {"rate": 1.0, "side": "chosen"}
        return [
            self._contender(table.DENSE, screening=False),
            self._contender(table.PLAIN_PRODUCTS, screening=False, plain_products=True),
            *(self._contender(table.screened(r), rate=r) for r in told.rates),
            *(self._contender(table.mistaken(r), rate=r, wrong=WRONG) for r in told.wrong_rates),
            self._contender(table.ONE_SIDED, **half),
            *(self._contender(table.shrunk(r), rate=r, held=SHRUNK) for r in told.shrunk_rates),
        ]

    def _lean(self) -> list[Contender]:
        """One pair a pack, without and with activation checkpointing: measured once, for the memory."""
        one = ("--pack-tokens", "1")
        return [
            self._contender(table.ONE_PAIR, one, screening=False),
            self._contender(table.LEAN, (*one, "--checkpointing", "on"), screening=False),
        ]

    def _contender(self, name: str, arguments: tuple[str, ...] = (), **order: Any) -> Contender:
        usual = {"rate": 1.0, "side": "both", "wrong": 0.0, "held": 0.0, "screening": True, "plain_products": False}
        full = {"do": "train", **usual, **order}
        return Contender(name, sys.executable, "trimtab_worker.py", (*self._common(), *arguments), full)

    def _common(self) -> tuple[str, ...]:
        return ("--shape", self.told.shape, "--lengths", self.told.lengths, "--pairs", str(self.told.pairs))

    def _survey(self) -> None:
        """Every TRL setting once; the fastest keeps its process for the repeats to come."""
        for name in list(TRL_SETTINGS)[: self.told.trl]:
            arguments = (*self._common(), *TRL_SETTINGS[name])
            turn = Contender(name, self.told.peer_python, "trl_worker.py", arguments, {"do": "train"})
            seconds = self._take(turn, 0)
            beaten: Contender | None = turn
            if seconds is not None and (self.best is None or seconds < self._seconds(self.best)):
                beaten, self.best = self.best, turn
            if beaten is not None:
                self.processes.stop(beaten)

    def _seconds(self, turn: Contender) -> float:
        return [row["seconds"] for row in self.samples if row["contender"] == turn.name][-1]

    def _take(self, turn: Contender, repeat: int) -> float | None:
        """Seconds of one measurement; once more where other work took the processor away, and both are kept. None
        where the process ended, which is a row too."""
        for _ in range(ATTEMPTS):
            try:
                worker = self.processes.of(turn)
                answer = worker.order(**turn.order)
            except EndedError as ended:
                self.samples.append({"repeat": repeat, "contender": turn.name, "error": str(ended)})
                print(f"{repeat} {turn.name}: {ended}", flush=True)
                return None
            above = answer["peak"] - worker.ready["before"] - worker.ready["held"]
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
    pairs = make_pairs(told.pairs, lengths=told.lengths, vocabulary=SHAPES[told.shape].vocabulary)
    bench = Bench(told, log)
    began = datetime.now(UTC)
    commit = machine.commit()
    environment = machine.environment(told.threads)
    started = startup.measure(told.shape, pairs, environment=environment) if told.startup else {}
    file = told.out / f"results-{told.shape}-{told.lengths}.json"
    for done in bench.run():
        about = machine.about("bench.py", began, commit, threads=told.threads, peer=told.peer_python)
        results = _results(told, about, done, started, bench.samples)
        file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        table.write(told.out)
    print("\n" + table.section(results))


def _results(
    told: argparse.Namespace,
    about: dict[str, Any],
    done: int,
    started: dict[str, Any],
    samples: list[dict[str, Any]],
) -> dict[str, Any]:
    shape = SHAPES[told.shape]
    pairs = make_pairs(told.pairs, lengths=told.lengths, vocabulary=shape.vocabulary)
    settings = {name: value for name, value in vars(told).items() if name not in {"peer_python", "out"}}
    return {
        "about": about,
        "settings": settings | {"repeats": done},
        "workload": {
            "shape": asdict(shape) | {"parameters": shape.parameters},
            "tokens": [sum(len(pair[i]) for pair in pairs) for i in range(3)],
            "response_tokens": response_sizes(pairs),
            "training_operations": shape.training_operations(pairs),
        },
        "startup": started,
        "samples": samples,
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="trimtab against TRL, in one run on one machine")
    parser.add_argument("--peer-python", help="the interpreter of an environment with trl 1.16")
    parser.add_argument("--shape", default="60m", choices=SHAPES)
    parser.add_argument("--lengths", default="ultrafeedback", choices=LENGTHS)
    parser.add_argument("--pairs", type=int, help="pairs an optimizer step; a multiple of TRL's batch")
    parser.add_argument("--repeats", type=int)
    for name, what in (
        ("--rates", "active rates, by tokens"),
        ("--wrong-rates", f"… at which a tenth ({WRONG:g}) of the forecasts are made wrong as well"),
        ("--shrunk-rates", f"… at which {SHRUNK:g} of the inactive tokens are not computed"),
    ):
        parser.add_argument(name, type=float, nargs="*", help=what)
    parser.add_argument("--trl", type=int, help=f"how many of TRL's {len(TRL_SETTINGS)} settings, in order")
    parser.add_argument("--threads", type=int, default=machine.threads_here())
    parser.add_argument(
        "--no-startup", dest="startup", action="store_false", help="leave out --help and the reference stage (main run)"
    )
    parser.add_argument("--out", type=Path, default=HERE)
    told = parser.parse_args()
    for name, value in (LARGE if told.shape.startswith("qwen") else USUAL).items():
        if getattr(told, name) is None:
            setattr(told, name, value)
    told.startup = told.startup and (told.shape, told.lengths) == table.MAIN
    if told.peer_python is None and told.trl:
        parser.error("--peer-python is needed, or --trl 0 to leave TRL out")
    return told


if __name__ == "__main__":
    sys.exit(main())
