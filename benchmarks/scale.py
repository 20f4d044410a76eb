"""How `trimtab audit` and `trimtab prepare` grow with the data: seconds and peak memory, up to a million pairs.

    python benchmarks/scale.py [--rows 10000,100000,1000000] [--folder DIR]

The pairs are synthetic (about 190 characters a row, no two alike), tokenised for the embedded model. Each command
is a process of its own; its peak is what the operating system counted (resident set, ru_maxrss).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

MODEL = ("--model", "windtunnel", "--data.max-prompt-tokens", "96", "--data.max-response-tokens", "64")
_WORDS = (
    "the",
    "a",
    "red",
    "blue",
    "small",
    "green",
    "cat",
    "dog",
    "bird",
    "two",
    "five",
    "runs",
    "sees",
    "big",
    "old",
)


def write_pairs(path: Path, rows: int) -> None:
    """JSONL of `prompt`, `chosen`, `rejected`, every row unlike the others."""
    rng = random.Random(rows)

    def words(n: int) -> str:
        return " ".join(rng.choices(_WORDS, k=n))

    with path.open("w", encoding="utf-8") as file:
        for row in range(rows):
            told = {"prompt": f"question {row}: {words(8)}?", "chosen": words(12) + ".", "rejected": words(10) + "!"}
            file.write(json.dumps(told) + "\n")


def measured(words: list[str], *, log: Path) -> tuple[float, float]:
    """(seconds, peak resident memory in MB) of one command; raises when it fails."""
    began = time.monotonic()
    with log.open("wb") as out:
        pid = os.posix_spawn(
            words[0], words, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, out.fileno(), fd) for fd in (1, 2)]
        )
        _, status, used = os.wait4(pid, 0)
    if code := os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{' '.join(words)} ended with {code}:\n{log.read_text(encoding='utf-8')[-2000:]}")
    unit = 1 if sys.platform == "darwin" else 1024
    return time.monotonic() - began, used.ru_maxrss * unit / 1e6


def commands(data: Path, out: Path) -> dict[str, list[str]]:
    """The command line of each case."""
    cli = [sys.executable, "-m", "trimtab.cli"]
    return {
        "audit (text)": [*cli, "audit", str(data), "--json"],
        "prepare (tokens)": [*cli, "prepare", "--data", str(data), "--benchmark", "none", "--judge", "none", *MODEL,
                             "--out", str(out)],
    }  # fmt: skip


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rows", default="10000,100000,1000000")
    parser.add_argument("--folder", type=Path, help="where the data is written; default a temporary folder")
    words = parser.parse_args()
    print("| command | pairs | seconds | pairs a second | peak MB |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=words.folder) as made:
        folder = Path(made)
        for rows in map(int, words.rows.split(",")):
            data = folder / f"{rows}.jsonl"
            write_pairs(data, rows)
            for name, command in commands(data, folder / "run").items():
                seconds, peak = measured(command, log=folder / "log")
                print(f"| {name} | {rows:,} | {seconds:.1f} | {rows / seconds:,.0f} | {peak:,.0f} |", flush=True)
                shutil.rmtree(folder / "run", ignore_errors=True)
            data.unlink()


if __name__ == "__main__":
    main()
