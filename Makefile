# `make` alone lists the targets. Everything needs Python 3.11 or newer and, the first time, a network to the package index.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= $(shell nproc 2>/dev/null || echo 2)
export OMP_NUM_THREADS ?= 1
export NO_ALBUMENTATIONS_UPDATE = 1

.PHONY: help setup ablation baselines test lint types fast ddp several notebooks tiny fuzz bench clean stage1 lock

help:  ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: $(STAMP)  ## make .venv with everything in it, from the lock

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"bipose needs Python 3.11 or newer; this is {v[0]}.{v[1]}: make setup PYTHON=python3.11")'
	@echo "setting up $(VENV) from requirements.lock"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@uv=$$(command -v uv || echo $(BIN)/uv); \
	  test -x "$$uv" || { $(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.5' && uv=$(BIN)/uv; }; \
	  "$$uv" pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.lock && \
	  "$$uv" pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

ablation: setup  ## the main job: make the synthetic set, run the temporal ablation, print its table, write its report
	@$(BIN)/bipose ablate experiments/ablations/temporal.yaml --out runs --workers $(WORKERS)

SEEDS ?= 1
baselines: setup  ## every method under one budget, one table; SEEDS=5 for verdicts
	@$(BIN)/bipose ablate experiments/ablations/baselines.yaml --out runs --workers $(WORKERS) --seeds $(SEEDS)

test: setup lint types fast several tiny  ## everything below that must pass

lint: setup  ## style and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: setup  ## mypy, strict on the package
	$(BIN)/mypy

fast: setup  ## the tests that run on every change
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile -m "not slow and not gpu and not ddp and not notebook"

ddp: setup  ## tests that start several processes
	$(BIN)/python -m pytest -q -m "ddp and not slow"

several: setup  # ddp and notebooks side by side
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile -m "(ddp or notebook) and not slow"

notebooks: setup  ## execute the notebooks
	$(BIN)/python -m pytest -q -m "notebook and not slow"

tiny: setup  ## a tiny ablation from nothing to its report, by the command line
	@out=$$(mktemp -d) && $(BIN)/bipose ablate experiments/ablations/tiny.yaml --out $$out/runs --workers 2 --set data.reader.init_args.root=$$out/data --set data.cache.root=$$out/features; status=$$?; rm -rf $$out; exit $$status

FUZZ ?= 10000
fuzz: setup  ## FUZZ=10000 broken files over all readers and protocols
	$(BIN)/python tests/fuzz/run.py --cases $(FUZZ) --workers $(WORKERS)

bench: setup  ## measure; writes benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks

stage1: setup  ## remake the default's per-frame weights (minutes on a GPU, hours on two cores)
	$(BIN)/bipose data make --root data/synthetic-stage1 --clips stage1=2000 --frames 16 --fps 12.5 --clips-per-cluster 1 --formats jhmdb
	$(BIN)/bipose data make --root data/synthetic --clips train=112,val=24,test=96 --frames 32 --formats jhmdb
	$(BIN)/bipose ablate experiments/recipes/stage1.yaml --out runs --set data.num_workers=$$(( $(WORKERS) > 2 ? $(WORKERS) - 1 : 1 ))
	$(BIN)/bipose weights runs/stage1/resnet18_narrow/seed0 --out experiments/weights/stage1.safetensors

lock:  ## resolve the dependencies anew
	$(BIN)/uv pip compile --quiet --python $(BIN)/python --extra dev --generate-hashes --no-emit-index-url --custom-compile-command "make lock" pyproject.toml -o requirements.lock

clean:  ## remove .venv, caches, made data and RUNS (results included)
	rm -rf $(VENV) runs data/synthetic* data/features* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache lightning_logs
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
