"""Every way to start one run on several processes that docs/scaling.md names makes the run that torchrun makes.

Each is the real launcher: accelerate, srun on a SLURM cluster of this machine, Ray's TorchTrainer, and torchrun on two
hosts, which are network namespaces with a cable between them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import pytest
from safetensors.torch import load_file

import slurm_cluster
from process_runs import TESTS, command, environment

pytestmark = pytest.mark.slow
LIMIT = 180.0  # seconds of one start
KEYS = {
    "data.limit": "40",
    "train.max_steps": "4",
    "train.batch_pairs": "6",
    "benchmark.name": "none",
    "judge.name": "none",
    "engine.dtype": "float32",
    "engine.threads": "1",
}
LAUNCHER = [sys.executable, "-m", "torch.distributed.run"]
HOSTS = ("trimtab-a", "trimtab-b")


def words(out: Path) -> list[str]:
    """Of the command line, after `trimtab`."""
    return ["train", "--out", str(out), *(word for name, value in KEYS.items() for word in (f"--{name}", value))]


def start(words: list[str], home: Path, more: Mapping[str, str] | None = None) -> None:
    """Run to its end. Raises AssertionError with what was said."""
    variables = environment(home, **(more or {}))
    done = subprocess.run(words, env=variables, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the caches and `torchrun`, the run that all others are to be."""
    folder = tmp_path_factory.mktemp("starts")
    start(command(["-m", "trimtab", *words(folder / "torchrun")], size=2), folder / "home")
    return folder


def is_the_run(out: Path) -> None:
    """Bit by bit."""
    a, b = (load_file(path / "model" / "model.safetensors") for path in (out, out.parent / "torchrun"))
    assert a.keys() == b.keys()
    assert all(bool((a[name] == b[name]).all()) for name in a)


def test_accelerate(folder: Path) -> None:
    out = folder / "accelerate"
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--module", "trimtab"]
    start([*launch, *words(out)], folder / "home")
    is_the_run(out)


@pytest.mark.skipif(slurm_cluster.missing() is not None, reason=str(slurm_cluster.missing()))
def test_srun(folder: Path, tmp_path: Path) -> None:
    out = folder / "srun"
    with slurm_cluster.slurm_cluster(tmp_path, slots=2) as variables:
        launch = ["srun", "--ntasks", "1", "--cpus-per-task", "2", *command(["-m", "trimtab"], size=2)]
        start([*launch, *words(out)], folder / "home", variables)
    is_the_run(out)


@pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed: pip install 'trimtab[ray]'")
def test_a_trainer_of_ray(folder: Path) -> None:
    out = folder / "ray"
    start([sys.executable, str(TESTS / "ray_trainer.py"), *words(out)], folder / "home")
    is_the_run(out)


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """Two network namespaces that reach each other alone; the address of each."""
    if os.getuid() != 0 or shutil.which("ip") is None:
        pytest.skip("two hosts are network namespaces: ip of iproute2, and root")
    addresses = ["10.77.0.1", "10.77.0.2"]
    with ExitStack() as stack:
        for host in HOSTS:
            if subprocess.run(["ip", "netns", "add", host], capture_output=True, check=False).returncode:
                pytest.skip("this machine makes no network namespace")
            stack.callback(subprocess.run, ["ip", "netns", "del", host], check=False)
        _ip("link", "add", "wire-a", "netns", HOSTS[0], "type", "veth", "peer", "name", "wire-b", "netns", HOSTS[1])
        for host, wire, address in zip(HOSTS, ("wire-a", "wire-b"), addresses, strict=True):
            _ip("-n", host, "address", "add", f"{address}/24", "dev", wire)
            for link in ("lo", wire):
                _ip("-n", host, "link", "set", link, "up")
        yield addresses


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def test_two_hosts(folder: Path, hosts: list[str]) -> None:
    out = folder / "hosts"
    launch = [*LAUNCHER, "--nnodes", "2", "--nproc-per-node", "1", "--master-addr", hosts[0], "--master-port", "29577"]
    variables = environment(folder / "home")
    children = [
        subprocess.Popen(
            ["ip", "netns", "exec", host, *launch, "--node-rank", str(rank), "-m", "trimtab", *words(out)],
            env=variables | {"GLOO_SOCKET_IFNAME": f"wire-{host[-1]}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank, host in enumerate(HOSTS)
    ]
    said = [child.communicate(timeout=LIMIT)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0], "\n".join(said)
    is_the_run(out)
