"""A folder in memory where there is one: a killed process leaves the same files there, and a sync costs nothing."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_MEMORY = Path("/dev/shm")  # noqa: S108  # a folder of our own is made in it


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder, with the cache of all runs in it."""
    roomy = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > 1e9
    folder = Path(tempfile.mkdtemp(prefix="trimtab-test-", dir=_MEMORY if roomy else None))
    monkeypatch.setenv("TRIMTAB_HOME", str(folder / "home"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2 with random weights."""
    import children  # noqa: F401  # its import makes the stage tests' modules known

    from stage_runs import write_model

    return write_model(tmp_path_factory.mktemp("models") / "qwen")
