"""Writes the lock file of the tools' own environment: every pin of constraints.txt with the sha256 of its archives.

    python supply/lock.py            (or: make lock)

pip resolves `.[dev]` within constraints.txt and says which archive it would take and its digest; nothing is installed.
Digests of other platforms and Python versions that the file already holds are kept as long as the version is the same,
so running it on each of them makes one file for all. torch is left out: its builds (CPU, CUDA, ROCm) differ by machine,
come from different indexes under one version, and bring other packages along; `make locked` takes it by its pin alone.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = Path(__file__).with_name("lock.txt")
LEFT_OUT = {"torch", "setuptools", "trimtab"}  # setuptools comes along with torch
HEADER = """\
# Made by `make lock`; do not edit. `make locked` installs it with --require-hashes.
# torch is not in it: see lock.py.
"""


def resolved() -> dict[str, tuple[str, str]]:
    """Name → (version, sha256) of the archive that pip would take here."""
    words = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed", "--report", "-"]
    words += ["--constraint", str(ROOT / "constraints.txt"), f"{ROOT}[dev]", "hatchling"]
    told = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)  # noqa: S603  # our own words
    found = {}
    for one in told["install"]:
        name = canonical(one["metadata"]["name"])
        if name not in LEFT_OUT and not name.startswith(("nvidia-", "triton", "cuda-")):
            found[name] = (one["metadata"]["version"], one["download_info"]["archive_info"]["hashes"]["sha256"])
    return found


def read(path: Path) -> dict[str, tuple[str, set[str]]]:
    """Name → (version, digests) of a lock file."""
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    return {
        canonical(found[1]): (found[2], set(re.findall(r"--hash=sha256:([0-9a-f]{64})", found[3])))
        for found in re.finditer(r"(?m)^([\w.-]+)==(\S+)\s*(.*)$", text)
    }


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> None:
    held, entries = read(LOCK), []
    for name, (version, digest) in sorted(resolved().items()):
        known = held[name][1] if name in held and held[name][0] == version else set()
        lines = [f"{name}=={version}", *(f"    --hash=sha256:{one}" for one in sorted(known | {digest}))]
        entries.append(" \\\n".join(lines))
    LOCK.write_text(HEADER + "\n".join(entries) + "\n", encoding="utf-8")
    sys.stdout.write(f"{LOCK}: {len(entries)} packages\n")


if __name__ == "__main__":
    main()
