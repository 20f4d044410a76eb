#!/usr/bin/env bash
# A handler for SIGTERM that a program set before ray.init() is never called again, and nothing says so.
#
# Guess:     a library that is asked to start or join a cluster leaves the signal handlers of the program alone.
# Versions:  ray 2.60.0, Python 3.11.
# Behaviour: ray.init() puts a function of its own in the handler's place, with signal.signal, without a word and without
#            calling the one before. SIGTERM then prints a stack trace and the process leaves by sys.exit(15); what the
#            program's handler was to save is lost. Set after ray.init(), the same handler is called.
# Seen:      set before ray.init(): exit code 15, nothing said; set after it: exit code 0, handled.
set -euo pipefail
work=$(mktemp -d /tmp/rXXXXXX)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check ray==2.60.0
export RAY_TMPDIR="$work"
mkdir "$work/ray"
"$work/venv/bin/python" - <<'PY'
import subprocess
import sys

DRIVER = """
import os, signal, sys, time
import ray

is_handled = False

def handle(*_):
    global is_handled
    is_handled = True

def join():
    ray.init(num_cpus=1, object_store_memory=80_000_000, include_dashboard=False, logging_level="ERROR")

if sys.argv[1] == "before":
    signal.signal(signal.SIGTERM, handle)
    join()
else:
    join()
    signal.signal(signal.SIGTERM, handle)
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(1)
print("handled" if is_handled else "not handled", flush=True)
ray.shutdown()
"""


def driver(moment):
    process = subprocess.run([sys.executable, "-c", DRIVER, moment], capture_output=True, text=True, timeout=120)
    print(f"handler set {moment} ray.init(): exit code {process.returncode}, {process.stdout.strip() or 'nothing said'}")
    return process.returncode, process.stdout.strip()


assert driver("after") == (0, "handled")
assert driver("before") == (15, ""), "this finding is out of date"
PY
