"""The command of an experiment of arms: runs that are missing, one JSON each, then what all that are kept say."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trimtab import store

Results = Sequence[Mapping[str, Any]]


def command(
    text: str | None, *, make: Callable[[Path], None], lines: Callable[[Results], list[str]], kept: Path
) -> None:
    """`kept` holds the runs' results beside the code; with `--runs FOLDER` they are made there and put here."""
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("--runs", type=Path, help="folder of the runs; without it the kept results are read")
    folder = parser.parse_args().runs
    if folder is not None:
        make(folder)
        store.write_jsonl(kept, [store.read_json(path) for path in sorted(folder.glob("*-?.json"))])
    results = store.read_jsonl(kept) if kept.is_file() else []
    print("\n".join(lines(results)) or "No results are kept yet: --runs FOLDER makes them.")
