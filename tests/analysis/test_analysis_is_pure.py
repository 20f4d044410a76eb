"""No module of `analysis` reaches for the disk, the network, the clock or the global random state."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import trimtab.analysis

MODULES = sorted(Path(trimtab.analysis.__file__).parent.glob("*.py"))
FORBIDDEN_IMPORTS = {
    "os",
    "pathlib",
    "shutil",
    "socket",
    "urllib",
    "time",
    "datetime",
    "random",
    "tempfile",
    "requests",
}
ALLOWED_RANDOM = {"default_rng", "Generator"}


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_its_source_names_nothing_impure(module: Path) -> None:
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & FORBIDDEN_IMPORTS
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in FORBIDDEN_IMPORTS
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"open", "print", "input", "exec", "eval"}
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.value.attr == "random":
            assert node.attr in ALLOWED_RANDOM


def test_importing_it_all_brings_no_heavy_library() -> None:
    names = ", ".join(f"trimtab.analysis.{path.stem}" for path in MODULES if path.stem != "__init__")
    heavy = "{'torch', 'sklearn', 'matplotlib', 'scipy', 'pandas', 'transformers'}"
    code = f"import sys, {names}; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
