"""A plain install, without extras: what they bring is hidden from Python here, and a run with an adapter works; what
needs them names the command that installs them before any work is done."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from trial_runs import TINY

ROOT = Path(__file__).resolve().parents[1]
# what the extras bring, and what comes along with it alone
HIDDEN = ("datasets", "pyarrow", "pandas", "openai", "tenacity", "optuna", "lm_eval", "bitsandbytes", "gguf")
HIDE = """
import sys
from importlib.machinery import PathFinder

hidden, find = set(sys.argv.pop(1).split(",")), PathFinder.find_spec
PathFinder.find_spec = staticmethod(lambda name, *rest: None if name.partition(".")[0] in hidden else find(name, *rest))
from trimtab import cli

cli.main(sys.argv[1:])
"""


def call(*words: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"TRIMTAB_HOME": str(home), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", HIDE, ",".join(HIDDEN), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=home)


def test_the_hidden_are_not_required() -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = {re.split(r"[><=]", line)[0].replace("-", "_") for line in told["dependencies"]}
    assert required & set(HIDDEN) == set()


def test_a_run_with_an_adapter_needs_no_extra(tmp_path: Path) -> None:
    done = call("run", *TINY, "--adapter", "lora", "--quiet", "--out", str(tmp_path / "run"), home=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "run" / "report.html").is_file()
    assert "<svg" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8"), "with its plots"


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (["audit", "owner/name"], "hub"),
        (["audit", "pairs.parquet"], "hub"),
        (["run", *TINY, "--judge", "openai:gpt-4o", "--base-url", "http://127.0.0.1:9/v1", "--out", "run"], "judge"),
    ],
)
def test_what_needs_an_extra_names_it(words: list[str], extra: str, tmp_path: Path) -> None:
    (tmp_path / "pairs.parquet").write_bytes(b"PAR1")
    done = call(*words, home=tmp_path)
    assert done.returncode == 2, done.stderr
    assert f"pip install 'trimtab[{extra}]'" in done.stderr
    assert not (tmp_path / "run").exists()
