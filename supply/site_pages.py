"""Pages of the site that nobody writes: the reference, out of the code, and files that lie outside docs/.

A hook of MkDocs. It runs in the generator's own environment; what needs trimtab is asked of the Python that
TRIMTAB_PYTHON names (`supply/reference.py`), which writes one JSON object of pages.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
# what pages link to outside docs/, at the same places on the site
OUTSIDE = (
    "recipes/**/*.toml", "recipes/README.md", "benchmarks/*.md", "experiments/numbers.json",
    "experiments/real/reward.json", "LOG.md", "CHANGELOG.md", "CONTRIBUTING.md",
)  # fmt: skip
_NAMES = r"(recipes/|benchmarks/|experiments/(?:numbers|real/reward)\.json|LOG\.md|CHANGELOG\.md|CONTRIBUTING\.md)"


def on_files(files: Files, config: Any) -> Files:
    for pattern in OUTSIDE:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, content=path.read_text(encoding="utf-8")))
    python = os.environ.get("TRIMTAB_PYTHON", sys.executable)
    asked = subprocess.run(  # noqa: S603  # our own script
        [python, str(ROOT / "supply" / "reference.py")], capture_output=True, text=True, check=True, cwd=ROOT
    )
    for name, text in json.loads(asked.stdout).items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """A link out of docs/ leads to the copy of what it names."""
    if page.file.generated_by:
        return markdown
    up = "../" * page.file.src_uri.count("/")  # to docs/
    return re.sub(rf"\]\({re.escape(up)}\.\./{_NAMES}", rf"]({up}\1", markdown)
