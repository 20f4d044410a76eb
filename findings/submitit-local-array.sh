#!/usr/bin/env bash
# An array of jobs tried locally: submitit starts all of it at once, and gives every job the same GPU.
#
# Guess:     with cluster="local" the array that was written for SLURM runs by the same parameters on this machine: not
#            more jobs at a time than the array's parallelism, and a GPU of its own for each that asks for one.
# Versions:  submitit 1.5.4.
# Behaviour: slurm_array_parallelism=1 is accepted (a name that no executor knows is refused) and means nothing locally,
#            nor do cpus_per_task and mem_gb: a sweep of 40 is 40 processes. Each job that asks for one GPU is told
#            CUDA_VISIBLE_DEVICES=0; nothing is reserved between jobs. No warning.
# Seen:      three jobs of 3 s with parallelism 1: all three have begun 1 s after the first; devices 0, 0, 0.
# The way out: submit the next when the one before is done, and visible_gpus of an executor for each GPU.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check submitit==1.5.4
"$work/venv/bin/python" - "$work" <<'PY'
import sys
import warnings

import submitit

warnings.simplefilter("error")


def job(number):
    import os
    import time

    start = time.time()
    time.sleep(3)
    return start, time.time(), os.environ.get("CUDA_VISIBLE_DEVICES")


executor = submitit.AutoExecutor(f"{sys.argv[1]}/jobs", cluster="local")
try:
    executor.update_parameters(slurm_no_such_parameter=1)
    raise SystemExit("an unknown name is accepted now")
except NameError:
    pass
executor.update_parameters(timeout_min=2, gpus_per_node=1, cpus_per_task=1, slurm_array_parallelism=1)
starts, ends, devices = zip(*(job.result() for job in executor.map_array(job, range(3))), strict=True)
print(f"started after {[round(start - min(starts), 1) for start in starts]} s; devices {devices}")
assert max(starts) < min(ends), "they wait for each other now: this finding is out of date"
assert devices == ("0", "0", "0"), "each job has a GPU of its own now: this finding is out of date"
PY
