"""`--model OWNER/NAME` and `--data OWNER/NAME`: from olah, a mirror of the Hub, and then from the Hub client's cache.

olah serves two git repositories made here, offline; it is no part of trimtab's environment (`make test-all` brings it
as `.venv-olah`, elsewhere $TRIMTAB_OLAH names a Python that has it, and else the test skips).
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from api_runs import rows
from trimtab import windtunnel

pytestmark = pytest.mark.slow
OLAH = os.environ.get("TRIMTAB_OLAH", str(Path(__file__).parents[2] / ".venv-olah/bin/python"))


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if shutil.which(OLAH) is None or shutil.which("git") is None:
        pytest.skip(f"needs git and olah: no {OLAH}; `make test-all` brings it")
    root = tmp_path_factory.mktemp("olah")
    model, data = root / "mirrors/models/me/tiny", root / "mirrors/datasets/me/pairs"
    shutil.copytree(windtunnel.model_folder(), model)
    data.mkdir(parents=True)
    (data / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(40)))
    (data / "README.md").write_text("---\nlicense: mit\n---\n")  # olah knows a data set by it
    for folder in (model, data):
        for words in (("init", "-qb", "main"), ("add", "-A"), ("commit", "-qm", "all")):
            author = ("-c", "user.name=nobody", "-c", "user.email=nobody@localhost")
            subprocess.run(["git", *author, *words], cwd=folder, check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (root / "olah.toml").write_text(
        f'[basic]\nhost = "127.0.0.1"\nport = {port}\nrepos-path = "{root}/repos"\n'
        f'mirrors-path = ["{root}/mirrors"]\n[accessibility]\noffline = true\n'
    )
    server = subprocess.Popen(
        [OLAH, "-m", "olah.server", "-c", "olah.toml"], cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{url}/api/models/me/tiny/revision/main", server)
        yield url
    finally:
        server.kill()
        server.wait()


def _wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        try:
            urlopen(url, timeout=5).close()  # noqa: S310  # on loopback
        except (URLError, OSError):
            assert server.poll() is None, "olah has ended"
            time.sleep(0.2)
        else:
            return
    raise AssertionError(f"{url} does not answer")


def test_a_model_and_pairs_are_read_from_a_mirror_and_then_from_the_cache(mirror: str, tmp_path: Path) -> None:
    hub = {"HF_HOME": str(tmp_path / "hf"), "TRIMTAB_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    online = {"HF_ENDPOINT": mirror, "HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0"}
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0"}

    def trimtab(*words: str, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "trimtab", *words],
            cwd=tmp_path,
            env=os.environ | hub | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    short = ["--train.max-steps", "1", "--train.batch-pairs", "4", "--engine.threads", "1"]
    words = ["run", "--model", "me/tiny", "--data", "me/pairs", *short]
    trimtab(*words, "--out", "first", **online)
    trimtab(*words, "--out", "second", "--offline", **nowhere)
    metrics = [json.loads((tmp_path / out / "metrics.jsonl").read_text()) for out in ("first", "second")]
    assert metrics[0]["loss"] == metrics[1]["loss"]
    assert json.loads((tmp_path / "first/data/audit.json").read_text())["rows"] == 40
    card = trimtab("push", "second", "me/aligned", "--dry-run", **nowhere)
    assert "base_model: me/tiny" in card
    assert "datasets:\n- me/pairs" in card
