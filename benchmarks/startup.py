"""What costs time besides training: `trimtab --help`, and a second run that finds its reference in the cache."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from workload import SHAPES, TokenIds, as_text, tokenizer

COMMAND = ["-m", "trimtab.cli"]
TIMES = 5


def measure(shape: str, pairs: list[TokenIds], *, environment: dict[str, str]) -> dict[str, Any]:
    """Seconds: of each `--help`; of `trimtab reference` on an empty cache, and by another run with the same pairs; of
    the imports alone (torch and transformers, nearly all of it) that every such command begins with."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = {**environment, "TRIMTAB_HOME": str(folder / "home")}
        helps = [_timed([*COMMAND, "--help"], environment) for _ in range(TIMES)]
        words = _inputs(folder, shape, pairs)
        runs = {}
        for run in ("first", "second"):
            out = ["--out", str(folder / run)]
            _timed([*COMMAND, "prepare", *words, *out], environment)
            seconds = _timed([*COMMAND, "reference", *words, *out], environment)
            runs[run] = {"seconds": seconds, **_computed(folder / run)}
        imports = _timed(["-c", "import trimtab.commands.run"], environment)
    return {"help_seconds": helps, "reference": runs, "import_seconds": imports}


def _timed(words: list[str], environment: dict[str, str]) -> float:
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed: {done.stderr}")
    return seconds


def _inputs(folder: Path, shape: str, pairs: list[TokenIds]) -> list[str]:
    model, data = folder / "model", folder / "pairs.jsonl"
    # transformers gives a Qwen2 folder a tokenizer of its own, whatever lies there; a Llama keeps the one it has
    SHAPES[shape].build("llama").save_pretrained(model)
    tokenizer(SHAPES[shape].vocabulary).save_pretrained(model)
    endless = [(prompt, chosen[:-1], rejected[:-1]) for prompt, chosen, rejected in pairs]  # prepare adds the end
    data.write_text("".join(json.dumps(as_text(pair)) + "\n" for pair in endless), encoding="utf-8")
    return ["--model", str(model), "--data", str(data), "--data.holdout", "0", "--quiet"]


def _computed(run: Path) -> dict[str, int]:
    told = json.loads((run / "reference.json").read_text(encoding="utf-8"))
    return {"rows": told["rows"], "computed": told["computed"]}
