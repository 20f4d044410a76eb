#!/usr/bin/env bash
# A job that SLURM kills, on a cluster that keeps no accounts: submitit never says that it is done.
#
# Guess:     job.done() becomes true when the job is over, whatever became of it: its docstring speaks of "the result
#            file", and else of "the job state", asked at least every minute.
# Versions:  submitit 1.5.4, SLURM 22.05.8 (Debian's slurm-wlm, munge; wants root).
# Behaviour: the state is asked of sacct alone. Without an accounting database (slurmdbd) sacct refuses, submitit warns
#            once a question, keeps the state UNKNOWN, and UNKNOWN is not done: job.done(force_check=True) stays false
#            for ever, and job.result() would wait as long. squeue and scontrol know all along that the job has ended.
# Seen:      squeue: nothing left; done: False, state: UNKNOWN, 15 s after the job was killed.
set -euo pipefail
export PATH="$PATH:/usr/sbin"
work=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check submitit==1.5.4
mkdir "$work/state" "$work/spool"
head -c 128 /dev/urandom > "$work/munge.key"
chmod 400 "$work/munge.key"
read -r port_1 port_2 < <(python3 -c '
import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in "ab"]
print(*(s.getsockname()[1] for s in sockets))')
cat > "$work/slurm.conf" <<CONF
ClusterName=here
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmctldPort=$port_1
SlurmdPort=$port_2
AuthType=auth/munge
AuthInfo=socket=$work/munge.socket
SlurmUser=root
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
NodeName=$(hostname) NodeAddr=127.0.0.1 CPUs=1 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF="$work/slurm.conf"
munged --foreground --force --key-file="$work/munge.key" --socket="$work/munge.socket" \
  --pid-file="$work/munged.pid" --log-file="$work/munged.log" --seed-file="$work/munged.seed" > "$work/munged.out" 2>&1 & pids+=($!)
for _ in $(seq 50); do [ -S "$work/munge.socket" ] && break; sleep 0.2; done
slurmctld -D > "$work/slurmctld.log" 2>&1 & pids+=($!)
slurmd -D > "$work/slurmd.log" 2>&1 & pids+=($!)
for _ in $(seq 100); do [ "$(sinfo --noheader --format=%T 2>/dev/null)" = idle ] && break; sleep 0.2; done
sinfo --version
"$work/venv/bin/python" - "$work" 2> >(grep -v "accounting storage is disabled" >&2) <<'PY'
import logging
import subprocess
import sys
import time

import submitit

logging.getLogger("submitit").setLevel("ERROR")  # a warning a question



def until(is_so, seconds):
    deadline = time.monotonic() + seconds
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.2)
    return is_so()


def squeue(*words):
    return subprocess.run(["squeue", "--noheader", *words], capture_output=True, text=True, check=True).stdout.split()


executor = submitit.SlurmExecutor(f"{sys.argv[1]}/jobs")
sound = executor.submit(time.sleep, 0)
assert until(sound.done, 30), "a job that ends by itself leaves a result file, and is done"
lost = executor.submit(time.sleep, 600)
assert until(lambda: squeue("--states=RUNNING", "--format=%i") == [lost.job_id], 30)
time.sleep(2)  # the step has begun
subprocess.run(["scancel", "--signal=KILL", "--full", lost.job_id], check=True)
assert until(lambda: squeue() == [], 30)
is_done = until(lambda: lost.done(force_check=True), 15)
print(f"squeue: nothing left; done: {is_done}, state: {lost.state}, 15 s after the job was killed")
assert (is_done, lost.state) == (False, "UNKNOWN"), "this finding is out of date"
PY
