# `make run`: from a fresh clone to a gated model.  `make test`: the test suite.  `make help` lists the rest.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(abspath $(VENV)/bin)
export PATH := $(BIN):$(PATH)

# No dependency reports home.
export DO_NOT_TRACK := true
export DVC_NO_ANALYTICS := 1
export GX_ANALYTICS_ENABLED := false
export ORT_DISABLE_TELEMETRY := 1
export MPLBACKEND := Agg

# A machine without a GPU saves 5 GB with PyTorch's CPU packages: make setup TORCH_INDEX=<their index, see pytorch.org>
TORCH_INDEX ?=
TORCH_PINS = $(shell grep -oE '^torch(vision)?==[0-9.]+' requirements.lock)
WITHOUT_TORCH = awk '/^[a-z]/ { skip = /^(torch|torchvision|triton|nvidia-|cuda-)/ } !skip'

.PHONY: help setup lock chromium run test test-all image-test lint ci clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/:/' | column -t -s :

setup: $(VENV)/.installed ## .venv with the locked dependencies

$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
ifdef TORCH_INDEX
	$(BIN)/python -m pip install --quiet --no-deps --index-url $(TORCH_INDEX) $(TORCH_PINS)
	$(WITHOUT_TORCH) requirements.lock > $(VENV)/requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r $(VENV)/requirements.lock
else
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements.lock
endif
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

lock: ## requirements.lock from pyproject.toml, with the reason for each package; needs uv
	uv pip compile --quiet pyproject.toml --all-extras --generate-hashes --python-version 3.11 --no-emit-index-url \
		--custom-compile-command "make lock" -o requirements.lock

chromium: ## a browser for the tests that open our pages
	@command -v chromium > /dev/null || { test "$$(id -u)" = 0 && apt-get update -qq && apt-get install -y -qq chromium > /dev/null; } \
		|| { echo "the page tests need Chromium: sudo apt-get install chromium" >&2; exit 1; }

run: setup ## sample corpus, all stages, the gate's decision
	arl sample --corpus data
	dvc add --quiet data
	dvc repro
	@arl verdict --decision out/decision --report out/report

demo-retrain: setup ## the loop on phantoms in build/demo-retrain: three batches arrive, one new champion
	rm -rf build/demo-retrain
	arl demo-retrain build/demo-retrain

test: setup chromium ## the test suite, without the slow tests
	OMP_NUM_THREADS=1 pytest -n 2 -m "not slow"

test-all: setup chromium ## every test, also servers, whole pipelines and kill scripts
	OMP_NUM_THREADS=1 pytest -n 2

image-test: setup ## builds the images and runs the pipeline in their containers; as root, with 30 GB of disk
	@command -v dockerd debootstrap > /dev/null || { apt-get update -qq && apt-get install -y -qq docker.io debootstrap > /dev/null; } \
		|| echo "docker.io and debootstrap cannot be installed" >&2
	OMP_NUM_THREADS=1 pytest -rs -s tests/pipelines/test_images.py

lint: setup ## formatting, lint, types
	ruff format --check .
	ruff check .
	mypy

clean: ## everything that `make run` wrote, but not the environment
	rm -rf data out runs registry monitor build local_outputs
