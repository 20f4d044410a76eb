"""What every test stands on: no network, fixed thread counts, the shared real data when it is there."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from scripted_server import Action, Script, ScriptedServer

os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    TOKENIZERS_PARALLELISM="false",
    OMP_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    MPLBACKEND="svg",
)

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real pairs, real tiny models and published judgments; skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared/data, which is not beside this checkout")
    return SHARED


@pytest.fixture(scope="session", autouse=True)
def _shared_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Fixtures that several tests share are made before a test has a home of its own; none touches the user's."""
    os.environ["TRIMTAB_HOME"] = str(tmp_path_factory.mktemp("home"))


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test gets its own cache folder."""
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any connection that leaves this machine fails the test that tried it."""
    real = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if self.family == socket.AF_UNIX or (isinstance(address, tuple) and address[0] in {"127.0.0.1", "::1"}):
            return real(self, address)  # type: ignore[arg-type]  # passed through unchanged
        raise AssertionError(f"a test tried to reach the network: {address!r}")

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def scripted_server() -> Iterator[Callable[[Script | Sequence[Action] | Action], ScriptedServer]]:
    """Starts servers on loopback that answer as they are told (see `scripted_server.py`); they stop with the test."""
    with ExitStack() as running:
        yield lambda script: running.enter_context(ScriptedServer(script))


@pytest.fixture(autouse=True)
def _own_logger() -> Iterator[None]:
    """A command hangs its reporter on the logger, with the stream of that test: the next one starts without."""
    logger = logging.getLogger("trimtab")
    handlers, propagate = logger.handlers, logger.propagate
    yield
    logger.handlers, logger.propagate = handlers, propagate


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Two test processes with two threads each on two cores slow each other five-fold."""
    import torch

    torch.set_num_threads(1)
