"""Which commit made a number."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def revision() -> str:
    """The commit of this checkout, with a + where tracked files of `src` differ from it."""

    def git(*words: str) -> str:
        process = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S607
        return process.stdout.strip()

    commit = git("rev-parse", "--short", "HEAD")
    mark = "+" if git("status", "--porcelain", "--untracked-files=no", "src") else ""
    return f"{commit}{mark}" if commit else "unknown"
