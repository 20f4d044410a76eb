"""A SLURM cluster of this one machine: munged, slurmctld and slurmd on one configuration file, in a folder of its own.

    python tests/slurm_cluster.py FOLDER SLOTS      writes and starts it, says what to export, ends with Ctrl-C

Needs Debian's slurm-wlm and munge, and root (slurmd wants it). Nothing outside the folder is written.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "srun")
START_SECONDS = 30.0

CONFIGURATION = """\
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmUser={user}
SlurmdUser={user}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
KillWait=20
MinJobAge=300
SchedulerParameters=sched_interval=1,batch_sched_delay=0
NodeName={host} NodeAddr=127.0.0.1 CPUs={slots} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""


def missing() -> str | None:
    """Why there can be no cluster here; None where there can."""
    absent = [name for name in PROGRAMS if which(name) is None]
    if absent:
        return f"no {', '.join(absent)} here: apt-get install slurm-wlm munge"
    if os.getuid() != 0:
        return "slurmd wants root"
    return None


def which(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


@contextmanager
def slurm_cluster(folder: Path, *, slots: int) -> Iterator[dict[str, str]]:
    """The variables that a process needs to use it, while it runs. Raises RuntimeError where it does not start."""
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    key, configuration = folder / "munge.key", folder / "slurm.conf"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    host = socket.gethostname()
    configuration.write_text(
        CONFIGURATION.format(host=host, folder=folder, user=_user(), slots=slots, ports=_free_ports(2))
    )
    variables = {"SLURM_CONF": str(configuration)}
    environment = os.environ | variables
    daemons = (
        ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket",
         f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed"],
        ["slurmctld", "-D", "-f", str(configuration)],
        ["slurmd", "-D", "-f", str(configuration)],
    )  # fmt: skip
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for command in daemons:
            with (folder / f"{command[0]}.out").open("wb") as out:
                program = which(command[0])
                assert program is not None
                processes.append(subprocess.Popen([program, *command[1:]], env=environment, stdout=out, stderr=out))
            if command[0] == "munged":
                _wait((folder / "munge.socket").exists, folder, processes)
        _wait(lambda: _state(environment) == "idle", folder, processes)
        yield variables
    finally:
        for process in reversed(processes):
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


def _free_ports(n: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


def _state(environment: dict[str, str]) -> str:
    asked = subprocess.run(
        ["sinfo", "--noheader", "--format=%T"], env=environment, capture_output=True, text=True, check=False
    )
    return asked.stdout.strip()


def _wait(is_ready: Callable[[], bool], folder: Path, processes: list[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not is_ready():
        ended = [process.args[0] for process in processes if process.poll() is not None]  # type: ignore[index]
        if ended or time.monotonic() > deadline:
            logs = "\n".join(f"{path.name}: {path.read_text(errors='replace')[-600:]}" for path in folder.glob("*.log"))
            raise RuntimeError(f"{ended or 'a daemon'} did not start\n{logs}")
        time.sleep(0.2)


if __name__ == "__main__":
    if reason := missing():
        sys.exit(reason)
    with slurm_cluster(Path(sys.argv[1]).resolve(), slots=int(sys.argv[2])) as exports:
        print(*(f"export {name}={value}" for name, value in exports.items()), sep="\n", flush=True)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            pass
