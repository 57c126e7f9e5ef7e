# make setup   an environment in .venv with the package and its pinned dependencies
# make demo    a small world model post-trained without a GPU: clips, shards, training, LoRA, generated video, report
# make test    the test suite, in two halves side by side: test-long-runs (training runs and groups of processes), test-others
# make test-fast   the files of tests/fast.txt: every room, in under two minutes
# make test-faults   kills, damaged files, signals, full disks: the long form of what docs/faults.md lists
# make test-slurm   jobs on a real Slurm of this machine: as root, with Debian's slurmd, slurmctld and munge
# make fuzz    damaged files for every reader, ten minutes each
# make lint    ruff
# make types   mypy
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0
# The CPU build of torch is a tenth of the size; a machine with an NVIDIA driver takes the one with CUDA from PyPI.
TORCH_INDEX ?= $(shell command -v nvidia-smi >/dev/null || echo https://download.pytorch.org/whl/cpu)
# The first interpreter that runs and has a supported version (a name on PATH may be a shim that does not run).
PYTHON ?= $(shell for p in python3.11 python3.12 python3.10 python3; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1 \
	&& { echo $$p; break; }; done)
DATA ?=

.PHONY: setup demo test test-long-runs test-others test-fast test-faults test-slurm fuzz lint types clean

setup: $(VENV)/.installed

$(VENV)/.installed: setup.py pyproject.toml
	@[ -n "$(PYTHON)" ] || { echo "error: no Python 3.10, 3.11 or 3.12 with venv found; give one with make PYTHON=/path/to/python (on Debian: apt install python3-venv)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),$(BIN)/pip install --retries 1 --timeout 60 --extra-index-url $(TORCH_INDEX) $(TORCH),$(BIN)/pip install $(TORCH))
	$(BIN)/pip install -e '.[dev]'
	$(BIN)/pip check
	touch $@

demo: setup
	$(BIN)/nemo-cosmos demo $(if $(DATA),--data '$(DATA)')

# Two parts of about the same length side by side, for two cores; both are run to their ends whatever the other finds.
LONG_RUNS := tests/parallel tests/training tests/faults tests/recipes tests/launch tests/test_gpu_check.py tests/test_torchrun.py
test: setup
	$(MAKE) --no-print-directory --keep-going --jobs=2 test-long-runs test-others

test-long-runs: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(LONG_RUNS)

test-others: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests $(addprefix --ignore=,$(LONG_RUNS))

test-fast: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest @tests/fast.txt

test-faults: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -v tests/faults -m "faults or not faults"

test-slurm: setup
	SLURM_TEST=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -v tests/slurm

fuzz: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz.run $(FUZZ)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check nemo_cosmos tests

types: setup
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build *.egg-info outputs/demo
