"""Whether two checkouts do the same: the commands of both on the same inputs, and their outputs side by side.

    python supply/goldens.py make OUT [--source SRC] [--shared DIR]   run every case by the package in SRC
    python supply/goldens.py diff A B                                 compare two such folders, value by value
    python supply/goldens.py open OLD OUT [--source SRC]              have the package in SRC open what OLD's made

`make` both sides on one machine in one go: a sum of floats depends on the processor. One thread. Model bytes, metrics,
reports and `--json` are compared whole but for what a clock, a process or a version says (TIMES). The embedded world
needs nothing else; with `--shared` real models, pairs and published judgments are used too.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TINY = (
    "--windtunnel.pairs 96 --windtunnel.prompts 24 --train.batch-pairs 8 --data.holdout 0.2 "
    "--generate.max-new-tokens 24 --engine.threads 1 --quiet"
)
TIMES = re.compile(
    r"seconds|memory|bytes|per_second|predicted|versions|trimtab$|created|tstamp|time|pid|host|\bnow\b|^computed$|^folder$"
)


@dataclass(frozen=True, slots=True)
class Case:
    """`name` is the folder's; `words` are those after `trimtab`. `answer`: its standard output is compared too."""

    name: str
    words: str
    answer: bool = False


def embedded() -> list[Case]:
    hinge = "--objective apo_hinge_zero --train.max-steps 12 --train.learning-rate 2e-3"
    return [
        Case("hinge", f"run {TINY} {hinge} --out hinge"),
        Case("hinge-again", f"run {TINY} {hinge} --out hinge"),
        Case("softplus", f"run {TINY} --objective apo_hinge_softplus --train.max-steps 4 --out softplus"),
        Case("shrinking", f"run {TINY} {hinge} --engine.shrinking on --train.epochs 3 --out shrinking"),
        Case("lora", f"run {TINY} --objective dpo --adapter lora --train.max-steps 4 --out lora"),
        Case("seeds", f"run {TINY} --objective margin_sigmoid --seeds 2 --train.max-steps 4 --out seeds"),
        Case("simpo", f"run {TINY} --objective simpo --train.max-steps 4 --out simpo"),
        Case("compare", "compare hinge softplus --json", answer=True),
        Case("compare-seeds", "compare seeds hinge --json", answer=True),
        Case("probe", "probe hinge --json", answer=True),
        Case("calibrate", "calibrate hinge --json", answer=True),
        Case("sweep", f"sweep {TINY} --grid objective.margin=0.5,1 --grid objective.beta=0.1,0.3 --train.max-steps 3 "
                      "--out sweep --json", answer=True),
        Case("power", "power --n 805 --delta 2.0 --json", answer=True),
        Case("export", "export lora --format merged --to merged"),
    ]  # fmt: skip


def real(shared: Path) -> list[Case]:
    data, pairs = shared / "eval" / "alpaca_eval", shared / "pairs"
    judged = sorted((data / "annotations").glob("*.json"))[:2]
    ukp = pairs / "ukp-convarg1-strict"
    ukp_file = next(file for file in sorted(ukp.rglob("*.jsonl*"))) if ukp.is_dir() else next(pairs.glob("ukp*"))
    difficulty = (
        f"--difficulty {data / 'instruction_difficulty_recovered.csv'} --gamed {data / 'df_gamed_reconstructed.csv'}"
    )
    small = "--data.limit 64 --train.batch-pairs 8 --train.max-steps 3 --benchmark none --engine.threads 1 --quiet"
    llama, neo = (f"--model {shared}/models/{name} --data {ukp_file}" for name in ("stories260K", "cardputer-chat-3M"))
    return [
        Case("winrate", f"winrate {judged[0]} {difficulty} --json", answer=True),
        Case("winrate-plain", f"winrate {judged[1]} --json", answer=True),
        Case("compare-judged", f"compare {judged[0]} {judged[1]} --json", answer=True),
        Case("audit", f"audit {ukp_file} --json", answer=True),
        Case(
            "llama",
            f"run {llama} --objective apo_hinge_zero {small} --out llama",
        ),
        Case("neo", f"run {neo} --adapter lora {small} --out neo"),
    ]


def call(words: str, *, source: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
        "TRIMTAB_HOME": str(cwd / "home"), "COLUMNS": "100", "PYTHONHASHSEED": "0",
    }  # fmt: skip
    command = [sys.executable, "-m", "trimtab.cli", *words.split()]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)  # noqa: S603  # our own words


def make(out: Path, *, source: Path, shared: Path | None) -> int:
    out.mkdir(parents=True)
    failures = 0
    for case in [*embedded(), *(real(shared) if shared else [])]:
        process = call(case.words, source=source, cwd=out)
        print(f"{case.name}: {process.returncode}", flush=True)
        if process.returncode:
            failures += 1
            print(process.stderr[-1500:])
        if case.answer:
            (out / f"{case.name}.answer.json").write_text(process.stdout, encoding="utf-8")
    return int(failures > 0)


def open_old(old: Path, out: Path, *, source: Path) -> int:
    """Every command that reads a finished run, over a copy of one that another version made."""
    shutil.copytree(old, out)
    failures = 0
    tiny = TINY.replace("--quiet", "")
    hinge = "--objective apo_hinge_zero --train.max-steps 12 --train.learning-rate 2e-3"
    sweep = "--grid objective.margin=0.5,1 --grid objective.beta=0.1,0.3 --train.max-steps 3 --out sweep"
    for words in (
        f"run {tiny} {hinge} --out hinge",
        *(f"{stage} hinge" for stage in ("prepare", "reference", "train", "generate", "judge", "report")),
        *(f"{study} --json" for study in ("compare hinge softplus", "probe hinge", "calibrate hinge")),
        "report seeds",
        f"sweep {tiny} {sweep}",
        "export lora --format merged --to merged-again",
    ):
        process = call(words, source=source, cwd=out)
        lines = [
            line for line in process.stderr.splitlines() if re.search(r"cache|already|nothing has changed|again", line)
        ]
        print(f"{words.split('--')[0]}: {process.returncode} {lines[:3]}", flush=True)
        if process.returncode:
            failures += 1
            print(process.stderr[-1500:])
    return int(failures > 0)


# --- comparing -------------------------------------------------------------------------------------------------------


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            if not TIMES.search(str(key)):
                yield from leaves(value, f"{path}/{key}")
    elif isinstance(tree, list):
        for number, value in enumerate(tree):
            yield from leaves(value, f"{path}/{number}")
    else:
        yield path, tree


def contents(file: Path) -> dict[str, Any]:
    """A file's values by path; of what is not text its digest."""
    if file.suffix in {".json", ".jsonl"}:
        text = file.read_text(encoding="utf-8")
        try:
            tree = json.loads(text) if file.suffix == ".json" else [json.loads(line) for line in text.splitlines()]
        except json.JSONDecodeError:
            return {"": text}
        return dict(leaves(tree))
    return {"": hashlib.sha256(file.read_bytes()).hexdigest()}


def compared_files(root: Path) -> Iterator[str]:
    for file in sorted(root.rglob("*")):
        name = str(file.relative_to(root))
        if file.is_file() and not re.search(
            r"(^|/)(home|checkpoints|\.\w+)/|\.(html|md|db|sqlite|log|lock)|/versions|note", name
        ):
            yield name


def same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (math.isnan(a) and math.isnan(b))
    return bool(a == b)


def diff(a: Path, b: Path) -> int:
    """Print every kind of difference once, with the files that have it."""
    names_a, names_b = set(compared_files(a)), set(compared_files(b))
    places: dict[str, list[str]] = {}
    for name in sorted(names_a ^ names_b):
        side = "first" if name in names_a else "second"
        places.setdefault(f"only in the {side}: {Path(name).name}", []).append(name)
    for name in sorted(names_a & names_b):
        old, new = contents(a / name), contents(b / name)
        for path in {**old, **new}:
            before, after = old.get(path, "(absent)"), new.get(path, "(absent)")
            if not same(before, after):
                kind = f"{re.sub(r'/[0-9]+(?=/|$)', '/*', path)}: {str(before)[:100]!r} -> {str(after)[:100]!r}"
                places.setdefault(kind, []).append(name)
    for kind, files in places.items():
        others = f" and {len(set(files)) - 1} more" if len(set(files)) > 1 else ""
        print(f"{kind}\n    {files[0]}{others}")
    print(f"{len(names_a & names_b)} files compared, {len(places)} kinds of difference")
    return int(bool(places))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("make", "diff", "open"))
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--source", type=Path, default=ROOT / "src")
    parser.add_argument("--shared", type=Path)
    arguments = parser.parse_args()
    paths = [path.resolve() for path in arguments.paths]
    if arguments.action == "diff":
        return diff(*paths)
    if arguments.action == "open":
        return open_old(*paths, source=arguments.source.resolve())
    return make(paths[0], source=arguments.source.resolve(), shared=arguments.shared and arguments.shared.resolve())


if __name__ == "__main__":
    sys.exit(main())
