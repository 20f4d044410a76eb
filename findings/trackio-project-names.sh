#!/usr/bin/env bash
# trackio files the projects "my.model" and "mymodel" as one: punctuation is dropped from the name, without a word.
#
# Guess:     two projects with different names are two projects, as in wandb, whose interface this is.
# Versions:  trackio 0.43.0.
# Behaviour: the database is named by the letters, digits, - and _ of the project's name. Runs of "my.model" show up in
#            "mymodel" and the other way round, and a run that is resumed by its name goes on with the other project's.
# Seen:      runs of mymodel: ['a', 'b'], of which b was logged to my.model; one database, mymodel.db.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check trackio==0.43.0
cd "$work"
TRACKIO_DIR="$work/trackio" HF_HUB_OFFLINE=1 venv/bin/python - "$work/trackio" <<'PY'
import contextlib
import io
import sys
from pathlib import Path

import trackio

with contextlib.redirect_stdout(io.StringIO()):
    for project, name in (("mymodel", "a"), ("my.model", "b")):
        trackio.init(project=project, name=name, embed=False)
        trackio.log({"loss": 1.0})
        trackio.finish()
    runs = sorted(run.name for run in trackio.Api().runs("mymodel"))
files = sorted(path.name for path in Path(sys.argv[1]).glob("*.db"))
print(f"runs of mymodel: {runs}; databases: {files}")
assert runs == ["a", "b"], "the two projects are told apart now: this finding is out of date"
assert files == ["mymodel.db"], "each project has a database of its own now"
PY
