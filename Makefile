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
# What a user needs. `dev` and `docs` come with `make setup-dev`.
EXTRAS := data train monitor release orchestrate
TORCH_PINS = $(shell grep -oE '^torch(vision)?==[0-9.]+' requirements.lock)
WITHOUT_TORCH = awk '/^[a-z]/ { skip = /^(torch|torchvision|triton|nvidia-|cuda-)/ } !skip'

.PHONY: help setup setup-dev lock debian run test test-all gpu-test image-test images cluster-test checkov golden lint docs house clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/:/' | column -t -s :

setup: $(VENV)/.installed ## .venv with the locked dependencies

setup-dev: $(VENV)/.installed-dev ## the same, with what tests, lint and the documentation need

$(VENV)/.installed: LOCK = requirements.lock
$(VENV)/.installed-dev: LOCK = requirements-dev.lock
$(VENV)/.installed $(VENV)/.installed-dev: requirements.lock requirements-dev.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
ifdef TORCH_INDEX
	$(BIN)/python -m pip install --quiet --no-deps --index-url $(TORCH_INDEX) $(TORCH_PINS)
	$(WITHOUT_TORCH) $(LOCK) > $(VENV)/requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r $(VENV)/requirements.lock
else
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r $(LOCK)
endif
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $(VENV)/.installed $@

UV_COMPILE = uv pip compile --quiet --generate-hashes --python-version 3.11 --no-emit-index-url \
	--custom-compile-command "make lock" $(UPGRADE) pyproject.toml

lock: ## both locks from pyproject.toml, with the reason for each package; needs uv; UPGRADE=--upgrade takes newer versions
	$(UV_COMPILE) $(EXTRAS:%=--extra %) -o requirements.lock
	$(UV_COMPILE) --all-extras --constraint requirements.lock -o requirements-dev.lock

debian: ## the Debian packages that the tests use, see debian-packages.txt
	@missing=$$(for name in $$(sed 's/ *#.*//' debian-packages.txt); do dpkg -s $$name > /dev/null 2>&1 || echo $$name; done); \
	test -z "$$missing" && exit 0; \
	test "$$(id -u)" = 0 || { echo "the tests need Debian packages: sudo apt-get install" $$missing >&2; exit 1; }; \
	apt-get update -qq && apt-get install -y -qq --no-install-recommends $$missing > /dev/null

run: setup ## sample corpus, all stages, the gate's decision
	arl sample --corpus data
	dvc add --quiet data
	dvc repro
	@arl verdict --decision out/decision --report out/report

demo-retrain: setup ## the loop on phantoms in build/demo-retrain: three batches arrive, one new champion
	rm -rf build/demo-retrain
	arl demo-retrain build/demo-retrain

test: setup-dev debian ## the test suite, without the slow tests
	OMP_NUM_THREADS=1 pytest -n 2 -m "not slow"

test-all: setup-dev debian ## every test, also servers, whole pipelines and kill scripts
	OMP_NUM_THREADS=1 pytest -n 2

gpu-test: setup-dev ## what only a GPU can show, in minutes; prints one JSON line
	pytest -s -m gpu tests/gpu

image-test: setup-dev ## builds the images and runs the pipeline in their containers; as root, with 30 GB of disk
	@command -v dockerd debootstrap > /dev/null || { apt-get update -qq && apt-get install -y -qq docker.io debootstrap > /dev/null; } \
		|| echo "docker.io and debootstrap cannot be installed" >&2
	OMP_NUM_THREADS=1 pytest -rs -s tests/pipelines/test_images.py

images: ## builds, scans, pushes and signs the step images: make images REGISTRY=... SETTINGS=FOLDER, see bin/images
	bin/images "$(REGISTRY)" $(SETTINGS)

cluster-test: setup-dev ## the pipelines on a real cluster: KUBECONFIG and KFP_ENDPOINT; skips with a reason without one
	pytest -rs -s -p no:cacheprovider tests/cluster

checkov: ## security rules on the built manifests, in an environment of its own (its dependencies clash with ours)
	test -x build/checkov/bin/checkov || { $(PYTHON) -m venv build/checkov && build/checkov/bin/pip install --quiet checkov; }
	mkdir -p build/manifests
	for overlay in k8s/overlays/*; do kubectl kustomize $$overlay > build/manifests/$$(basename $$overlay).yaml || exit 1; done
	build/checkov/bin/checkov --config-file k8s/checkov.yaml --directory build/manifests

golden: setup ## the compiled pipeline that the tests compare with, after an intended change
	ARL_CODE_VERSION=golden kfp dsl compile --py pipelines/arl_full.py --output tests/pipelines/golden/arl_full.yaml

lint: setup-dev ## formatting, lint, types, declared dependencies
	ruff format --check .
	ruff check .
	mypy
	deptry src components pipelines

house: setup-dev ## how the code and the documentation read, in figures
	python scripts/house.py

docs: setup-dev ## the documentation site, strictly, into build/site
	zensical build --strict --clean

clean: ## everything that `make run` wrote, but not the environment
	rm -rf data out runs registry monitor build local_outputs
