"""What was measured, on what, with which versions: the head of every result."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PACKAGES = ("trl", "torch", "transformers", "peft", "accelerate", "flash-attn", "xllamacpp", "trimtab")


def about(script: str, began: datetime, commit: str, *, threads: int, peer: str | None = None) -> dict[str, Any]:
    """`commit` as `commit()` told it before the measurement; `peer` is the interpreter of the other side."""
    pythons = {"ours": sys.executable} | ({"peer": peer} if peer else {})
    return {
        "date": f"{began:%Y-%m-%d}",
        "minutes": round((datetime.now(UTC) - began).total_seconds() / 60, 1),
        "commit": commit,
        "command": " ".join(["python", f"benchmarks/{script}", *_words()]),
        "machine": f"{_processor()}, {threads} threads, {total_memory() / 1e9:.0f} GB, {platform.system()}",
        "versions": {side: _versions(python) for side, python in pythons.items()},
    }


def commit(checkout: Path = HERE.parent) -> str:
    """Of the code that is about to be measured."""

    def git(*words: str) -> str:
        try:
            done = subprocess.run(["git", *words], cwd=checkout, capture_output=True, text=True, check=False)  # noqa: S607
        except OSError:  # no git here
            return ""
        return done.stdout.strip()

    changed = bool(git("status", "--porcelain", "--", "src"))
    return (git("rev-parse", "--short", "HEAD") or "unknown") + (" with changes in src/" if changed else "")


def lines(about: dict[str, Any]) -> list[str]:
    """The head as Markdown."""
    return [
        f"{about['date']}, commit {about['commit']}, {about['minutes']} minutes. {about['machine']}.",
        *(
            f"{side.capitalize()}: {', '.join(f'{name} {version}' for name, version in found.items())}."
            for side, found in about["versions"].items()
        ),
        "",
        f"    {about['command']}",
        "",
    ]


def environment(threads: int, checkout: str = "") -> dict[str, str]:
    """For a process that measures: offline, this many threads, the trimtab of this or another checkout."""
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": os.pathsep.join(
            filter(None, [checkout and f"{checkout}/src", os.environ.get("PYTHONPATH"), str(HERE.parent / "src")])
        ),
    }


def threads_here() -> int:
    return len(os.sched_getaffinity(0))


def total_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _words() -> list[str]:
    """The arguments, without where this machine keeps its interpreters and data."""
    words = sys.argv[1:]
    hidden = {
        "--peer-python": "PYTHON",
        "--pairs-file": "PAIRS",
        "--model": "MODEL",
        "--out": "FOLDER",
        "--baseline": "CHECKOUT",
        "--earlier": "EARLIER",
        "--texts": "PAIRS",
        "--llama-python": "PYTHON",
        "--gguf": "FILE",
        "--train": "PAIRS",
        "--held-out": "PAIRS",
    }
    return [hidden.get(words[i - 1], word) if i else word for i, word in enumerate(words)]


@cache
def _versions(python: str) -> dict[str, str]:
    code = (
        "import json, platform, importlib.metadata as m; v = {'python': platform.python_version()}\n"
        f"for n in {PACKAGES!r}:\n"
        "    try: v[n] = m.version(n)\n"
        "    except m.PackageNotFoundError: pass\n"
        "print(json.dumps(v))"
    )
    return json.loads(subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout)


def kind() -> str:
    """Maker and widest instructions, as they stand in the names of results: `amd-avx512`, `intel-amx`."""
    name = _processor().lower()
    maker = next((maker for maker in ("amd", "intel", "apple") if maker in name), platform.machine())
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    widest = {"amx": "amx_bf16", "avx512": "avx512f", "avx2": "avx2"}
    return "-".join([maker, *[name for name, flag in widest.items() if flag in flags.split()][:1]])


def _processor() -> str:
    try:
        rows = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    return next((row.partition(":")[2].strip() for row in rows if row.startswith("model name")), platform.machine())
