"""One row of docs/versions.md: what this environment is made of, a short run in it, and the tests of its inner rooms.

    ENVIRONMENT/bin/python supply/versions.py

The environment has trimtab, pytest and hypothesis. The run trains an adapter, judges and reports; the tests are those
of objectives, configuration and the store, which take half a minute.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ["tests/objectives", "tests/test_config.py", "tests/test_store.py"]
RUN = [
    "--adapter",
    "lora",
    "--train.max-steps",
    "3",
    "--windtunnel.pairs",
    "64",
    "--windtunnel.prompts",
    "32",
    "--quiet",
]


def words_of_run() -> str:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "trimtab", "run", *RUN, "--out", f"{folder}/run"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603
        return "done" if (Path(folder) / "run" / "report.html").is_file() else f"failed: {done.stderr[-300:]}"


def words_of_tests() -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider", *ROOMS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    print(done.stdout[-3000:], file=sys.stderr)
    return re.sub(r" in [\d.]+s.*", "", done.stdout.strip().splitlines()[-1]).strip("= ")


def main() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    packages = [version(name) for name in ("torch", "transformers", "peft", "numpy")]
    cells = [
        sys.version.split()[0],
        *packages,
        f"{platform.system()} {platform.machine()}",
        words_of_run(),
        words_of_tests(),
    ]
    print(f"| {' | '.join([*cells, datetime.now(UTC).date().isoformat()])} |")


if __name__ == "__main__":
    main()
