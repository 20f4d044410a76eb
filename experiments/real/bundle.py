"""All that real runs left, in one file to hand on: configurations, digests, versions, answers, scores and numbers.

    python -m experiments.real.bundle FILE.tar.gz

The same files make the same bytes. `manifest.json` in it has the SHA-256 of each.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path

from experiments.real import rates, settings
from experiments.real.rewards import ABOUT, ANSWERS, HERE, SCORES
from experiments.real.runs import RESULTS
from experiments.revision import ROOT
from trimtab import store

NUMBERS = ROOT / "experiments" / "numbers.json"


def contents() -> dict[str, bytes]:
    """Name in the bundle → bytes."""
    folders = (RESULTS, ANSWERS, SCORES, rates.RESULTS, settings.RESULTS)
    paths = [path for folder in folders for path in folder.glob("*.json")] + ([ABOUT] if ABOUT.exists() else [])
    files = {path.relative_to(HERE).as_posix(): path.read_bytes() for path in paths}
    numbers = store.read_json(NUMBERS)["numbers"]
    real = {name: number for name, number in numbers.items() if name.startswith("real")}
    files["numbers.json"] = (json.dumps(real, indent=1) + "\n").encode()
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}
    return files | {"manifest.json": (json.dumps(digests, indent=1) + "\n").encode()}


def write(path: Path, files: dict[str, bytes]) -> None:
    """A tar of them without owners and times."""
    with (
        path.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for name, data in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    files = contents()
    path = parser.parse_args().file
    write(path, files)
    print(f"{path}: {len(files)} files, {path.stat().st_size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
