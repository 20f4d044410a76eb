"""What the tests of this folder share: one real run, and the browser that the arena's tests drive."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile_calls import say

TINY = ("--windtunnel.pairs", "24", "--windtunnel.prompts", "8", "--train.max-steps", "2", "--train.batch-pairs", "8",
        "--data.holdout", "0.3", "--generate.max-new-tokens", "16")  # fmt: skip


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One real run on the shipped model, of seconds; copied before anything is done to it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIMTAB_HOME", str(tmp_path_factory.mktemp("home")))
        root = tmp_path_factory.mktemp("runs") / "run"
        told = say("run", *TINY, "--out", root, "--quiet", seconds=300)
        assert told.code == 0, told.err
        yield root
