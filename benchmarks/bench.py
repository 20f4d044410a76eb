"""trimtab against TRL on one machine in one run, taking turns: seconds a pair, memory, share of the machine's speed.

    .venv/bin/python benchmarks/bench.py --peer-python .venv-bench/bin/python --adapter lora

Every contender has a process of its own (`worker.py`; all of them warm, or one at a time where memory would not do)
and trains on the same pairs. In the first repeat all of TRL's settings run; the fastest in fp32 and the fastest of all
stay. The order turns from repeat to repeat. Ratios are taken within a repeat. Writes
`results-MACHINE-SHAPE-LENGTHS-….json` after each measurement, and in the end the page that `table.py` makes of all
such files.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import machine
import startup
import table
from contenders import Contender, EndedError, Processes
from workload import LENGTHS, SHAPES, TokenIds, pairs_of, response_sizes

HERE = Path(__file__).parent
# its head is fused and its reference cached in all of them; padding-free batches are switched off in TRL 1.16
TRL_SETTINGS = {
    "no checkpointing, batch 1": ("--batch", "1"),
    "no checkpointing, batch 4": ("--batch", "4"),
    "checkpointing, batch 1": ("--checkpointing", "--batch", "1"),
    "no checkpointing, batch 8": ("--batch", "8"),
    "checkpointing, batch 4": ("--checkpointing", "--batch", "4"),
    "checkpointing, batch 8": ("--checkpointing", "--batch", "8"),
}
PRECISIONS = {"fp32": "float32", "bf16": "bfloat16"}
ATTEMPTS = 2
WRONG = 0.1  # share of the response tokens whose forecast is made wrong
SHRUNK = 0.9  # share of the inactive tokens that shrinking does not compute
PROCESSES = 5  # of contenders that may be warm at one time, each with weights, gradients and moments


class Bench:
    """Takes the measurements; `samples` has one row each. `keep` is called after each."""

    def __init__(self, told: argparse.Namespace, log: Path, ids: Path | None) -> None:
        self.told = told
        self.keep: Callable[[], None] = lambda: None
        self.samples: list[dict[str, Any]] = []
        self.best: dict[str, Contender] = {}
        self._common = ["--shape", told.shape, "--lengths", told.lengths, "--pairs", str(told.pairs)]
        self._common += ["--completions", str(told.completions), *(["--lora"] if told.adapter == "lora" else [])]
        self._common += ["--model", str(told.model)] if told.model else []
        self._common += ["--ids", str(ids)] if ids else []
        held = 16 * SHAPES[told.shape].parameters * PROCESSES
        self.processes = Processes(threads=told.threads, log=log, one_at_a_time=held > machine.total_memory() / 3)

    def run(self) -> None:
        """Repeat after repeat."""
        ours = self._ours()
        for repeat in range(self.told.repeats):
            ceilings = self.processes.of(ours[0]).order(do="matmul")
            self.samples.append({"repeat": repeat, "contender": "matmul", **ceilings})
            turns = [*ours, *{best.name: best for best in self.best.values()}.values()]
            at = repeat * 3 % len(turns)
            for turn in turns[at:] + turns[:at]:
                self._take(turn, repeat)
            if repeat == 0:
                for lean in self._lean():
                    self._take(lean, repeat)
                    self.processes.stop(lean)
                self._survey(["fp32", *(["bf16"] if ceilings["matmul_bf16"] > ceilings["matmul"] else [])])
        self.processes.stop()

    def _ours(self) -> list[Contender]:
        told = self.told
        mixed = [self._contender(table.MIXED, ("--dtype", "mixed"), screening=False)] if told.mixed else []
        return [
            self._contender(table.DENSE, screening=False),
            *mixed,
            *([self._contender(table.BASELINE, checkout=told.baseline, screening=False)] if told.baseline else []),
            *(self._contender(table.screened(r), rate=r) for r in told.rates),
            *(self._contender(table.mistaken(r), rate=r, wrong=WRONG) for r in told.wrong_rates),
            *(self._contender(table.shrunk(r), rate=r, held=SHRUNK) for r in told.shrunk_rates),
        ]

    def _lean(self) -> list[Contender]:
        """One pair a pack, without and with activation checkpointing: measured once, for the memory."""
        if not self.told.lean:
            return []
        one = ("--pack-tokens", "1")
        return [
            self._contender(table.ONE_PAIR, one, screening=False),
            self._contender(table.LEAN, (*one, "--checkpointing", "on"), screening=False),
        ]

    def _contender(self, name: str, arguments: tuple[str, ...] = (), checkout: str = "", **order: Any) -> Contender:
        usual = {"rate": 1.0, "side": "both", "wrong": 0.0, "held": 0.0, "screening": True}
        full = {"do": "train", **usual, **order}
        return Contender(name, sys.executable, "trimtab_worker.py", (*self._common, *arguments), full, checkout)

    def _survey(self, precisions: list[str]) -> None:
        """Every TRL setting once; the fastest in fp32 and the fastest of all run in the repeats to come."""
        for name in list(TRL_SETTINGS)[: self.told.trl]:
            for precision in precisions:
                arguments = (*self._common, "--cached", "--dtype", PRECISIONS[precision], *TRL_SETTINGS[name])
                full = f"{table.trl(precision)}{name}"
                turn = Contender(full, self.told.peer_python, "trl_worker.py", arguments, {"do": "train"})
                seconds = self._take(turn, 0)
                for kind in ("fp32", "any") if precision == "fp32" else ("any",):
                    best = self.best.get(kind)
                    if seconds is not None and (best is None or seconds < self._seconds(best)):
                        self.best[kind] = turn
                self.processes.stop(turn)

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
            self.keep()
            self._say(row)
            if not table.is_disturbed(row, self.told.threads):
                break
        return float(answer["seconds"])

    def _say(self, row: dict[str, Any]) -> None:
        busy, others = (row[key] / row["seconds"] for key in ("cpu", "others"))
        told = f"{row['seconds']:.2f} s, {busy:.2f} CPUs, others {others:.2f}, {row['peak'] / 1e9:.2f} GB"
        print(f"{row['repeat']} {row['contender']}: {told}", flush=True)


def main() -> None:
    told = _arguments()
    told.out.mkdir(parents=True, exist_ok=True)
    log = told.out / "workers.log"
    log.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        told.ids = _tokenise(told, Path(folder) / "ids.json") if told.pairs_file else None
        pairs = pairs_of(told)
        bench = Bench(told, log, told.ids)
        began = datetime.now(UTC)
        commits = [machine.commit(), machine.commit(Path(told.baseline)) if told.baseline else ""]
        environment = machine.environment(told.threads)
        started = startup.measure(told.shape, pairs, environment=environment) if told.startup else {}
        file = told.out / f"results-{machine.kind()}-{table.file_name(vars(told))}.json"

        def keep() -> None:
            about = machine.about("bench.py", began, commits[0], threads=told.threads, peer=told.peer_python)
            results = _results(told, about | {"baseline": commits[1]}, started, bench.samples, pairs)
            file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")

        bench.keep = keep
        bench.run()
    table.write(told.out)
    print("\n" + table.section(json.loads(file.read_text(encoding="utf-8"))))


def _tokenise(told: argparse.Namespace, into: Path) -> Path:
    """The first pairs of the file as the model folder's tokenizer and template give them to training, and one end of
    turn for all, since the peer's tokenizer knows one."""
    from trimtab.config import Config
    from trimtab.progress import SilentReporter
    from trimtab.runtime.run_setup import set_up
    from trimtab.stages import prepare
    from workload import EOS

    data = {"source": str(told.pairs_file), "holdout": 0, "max_rejected": 1}
    config = {"model": {"name": str(told.model)}, "data": data, "offline": True}
    sound = prepare.prepare(set_up(Config.model_validate(config)), reporter=SilentReporter(), limit=2 * told.pairs)
    rows = [(t.prompt_ids, (*t.chosen_ids[:-1], EOS), (*t.rejected_ids[:-1], EOS)) for t in sound.train[: told.pairs]]
    assert len(rows) == told.pairs, f"{told.pairs_file} has {len(rows)} sound pairs among its first {2 * told.pairs}"
    into.write_text(json.dumps(rows), encoding="utf-8")
    return into


def _results(
    told: argparse.Namespace,
    about: dict[str, Any],
    started: dict[str, Any],
    samples: list[dict[str, Any]],
    pairs: list[TokenIds],
) -> dict[str, Any]:
    shape = SHAPES[told.shape]
    hidden = {"peer_python", "out", "ids", "baseline", "pairs_file", "startup"}
    settings = {name: value for name, value in vars(told).items() if name not in hidden}
    return {
        "about": about,
        "settings": settings | {"model": told.model and told.model.name},
        "workload": {
            "shape": asdict(shape) | {"parameters": shape.parameters},
            "tokens": [sum(len(pair[i]) for pair in pairs) for i in range(3)],
            "response_tokens": response_sizes(pairs),
            "training_operations": shape.training_operations(pairs, frozen=told.adapter == "lora"),
        },
        "startup": started,
        "samples": samples,
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="trimtab against TRL, in one run on one machine")
    parser.add_argument("--peer-python", help="the interpreter of an environment with trl 1.16")
    parser.add_argument("--shape", default="smollm2-135m", choices=SHAPES)
    parser.add_argument("--adapter", default="none", choices=("none", "lora"))
    parser.add_argument("--lengths", default="ultrafeedback", choices=LENGTHS, help="of random tokens")
    parser.add_argument("--completions", type=int, default=2, help="a prompt: 4 are six pairs, ranked data")
    parser.add_argument("--model", type=Path, help="a folder with real weights of this shape and their tokenizer")
    parser.add_argument("--pairs-file", type=Path, help="real pairs, read as a run reads them; needs --model")
    parser.add_argument("--baseline", help="another checkout, whose trimtab takes turns too")
    parser.add_argument("--pairs", type=int, default=8, help="pairs an optimizer step; a multiple of TRL's batch")
    parser.add_argument("--repeats", type=int, default=2)
    for name, default, what in (
        ("--rates", [0.3], "active rates, by tokens"),
        ("--wrong-rates", [], f"… at which a tenth ({WRONG:g}) of the forecasts are made wrong as well"),
        ("--shrunk-rates", [], f"… at which {SHRUNK:g} of the inactive tokens are not computed"),
    ):
        parser.add_argument(name, type=float, nargs="*", default=default, help=what)
    parser.add_argument("--trl", type=int, default=3, help=f"how many of TRL's {len(TRL_SETTINGS)} settings, in order")
    parser.add_argument("--threads", type=int, default=machine.threads_here())
    parser.add_argument("--no-mixed", dest="mixed", action="store_false", help="leave out mixed precision")
    parser.add_argument("--no-lean", dest="lean", action="store_false", help="leave out one pair a pack")
    parser.add_argument("--startup", action="store_true", help="time --help and the reference stage as well")
    parser.add_argument("--out", type=Path, default=HERE)
    told = parser.parse_args()
    if told.peer_python is None and told.trl:
        parser.error("--peer-python is needed, or --trl 0 to leave TRL out")
    if told.pairs_file:
        if told.model is None:
            parser.error("--pairs-file needs --model, whose tokenizer reads it")
        told.lengths = told.pairs_file.parent.name
    return told


if __name__ == "__main__":
    sys.exit(main())
