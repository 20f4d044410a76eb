#!/usr/bin/env bash
# A study that is opened again keeps the direction it was made with, and a sampler with a seed tries the same points again.
#
# Guess:     create_study(direction="maximize", load_if_exists=True) maximises, or refuses where the study minimises. A
#            search that goes on, program and seed unchanged, goes on to new points.
# Versions:  optuna 5.0.0, SQLAlchemy 2.1.9, alembic 1.20.1 (SQLite store).
# Behaviour: the direction that is asked for is dropped without a word: best_value is the smallest, and TPE looks for
#            smaller ones. The sampler's generator is no part of the study: with the same seed the first draws of every
#            start are the same, and while TPE still draws at random (10 trials) they are whole trials over again.
#            Nothing says that a trial is a duplicate, and they count in n_trials.
# Seen:      direction MINIMIZE after asking for maximize; of 4 trials in two starts of 2 2 are different; without a
#            seed 4 are.
# The way out: compare study.direction, and a seed made of the base seed and len(study.trials).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check optuna==5.0.0 SQLAlchemy==2.1.9 alembic==1.20.1
"$work/venv/bin/python" - "$work" <<'PY'
import logging
import sys
import warnings

import optuna

warnings.simplefilter("error")
messages = []


class Record(logging.Handler):
    def emit(self, record):
        if record.levelno >= logging.WARNING:
            messages.append(record.getMessage())


logging.getLogger("optuna").addHandler(Record())
optuna.logging.disable_default_handler()


def study(name, direction, seed):
    return optuna.create_study(
        study_name=name, storage=f"sqlite:///{sys.argv[1]}/studies.db", direction=direction, load_if_exists=True,
        sampler=optuna.samplers.TPESampler(seed=seed),
    )


def rate(trial):
    return trial.suggest_float("rate", 1e-6, 1e-3, log=True)


def different(name, seed):
    for direction in ("minimize", "maximize"):
        opened = study(name, direction, seed)
        opened.optimize(rate, n_trials=2)
    values = [trial.value for trial in opened.trials]
    return opened.direction.name, opened.best_value == min(values), len(set(values)), len(values)


seeded, unseeded = different("seeded", 1), different("unseeded", None)
print(f"direction {seeded[0]}; different trials of {seeded[3]}: {seeded[2]} with a seed, {unseeded[2]} without; {messages}")
assert seeded[:2] == ("MINIMIZE", True) and not messages, "the direction is changed, or said, now: this finding is out of date"
assert seeded[2:] == (2, 4), "a start with the same seed goes on to new points now: this finding is out of date"
assert unseeded[2:] == (4, 4)
PY
