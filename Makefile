# Everything here needs Python 3.11 or newer and make; `make help` lists the targets.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup song test test-all lint types check demo tiny clean

PYTHON ?= python3
WORKERS ?= 2
DURATION ?= 10
OUT ?= song.wav
export PROMPT ?= a slow sad piano piece in D minor, 70 bpm

# Without GPU=1 the constraints hold torch at a version that has CPU builds.
VENV := $(if $(GPU),.venv-gpu,.venv)
CONSTRAINTS := $(if $(GPU),,requirements/constraints-cpu.txt)
INSTALL := $(VENV)/bin/pip install --quiet $(CONSTRAINTS:%=-c %)
BIN := $(VENV)/bin

# torch on PyPI carries 5 GB of CUDA on Linux, and torchaudio there does not load without it;
# PyTorch's own index has builds of both without. pip takes the CPU build wherever it sees one. The
# index is only named to pip when it answers: pip would wait for a silent host again and again.
CPU_INDEX := https://download.pytorch.org/whl/cpu
ASK_INDEX := import urllib.request as web; web.urlopen("$(CPU_INDEX)/torch/", timeout=3)

# CC-BY-SA-3.0: 16 tracks, 64 minutes, 52 MB.
AS_ROOT := $(if $(filter-out 0,$(shell id -u)),sudo -n)
DEMO_MUSIC := $(AS_ROOT) apt-get install -y --no-install-recommends singularity-music

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18
	@echo
	@echo '  GPU=1 (any target): torch with CUDA, in .venv-gpu. PYTHON=... chooses the interpreter.'

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo 'error: Partita needs Python 3.11 or newer; name one: make PYTHON=python3.12 ...' >&2; \
		exit 2; }
	@echo 'creating $(VENV)'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.base: pyproject.toml $(CONSTRAINTS) | $(BIN)/pip
	@echo 'installing into $(VENV): about $(if $(GPU),6,1.2) GB, half a minute once it is downloaded'
ifndef GPU
	@if $(BIN)/python -c '$(ASK_INDEX)' 2>/dev/null; then \
		$(INSTALL) --no-deps --extra-index-url $(CPU_INDEX) torch torchaudio; \
	else \
		echo '$(CPU_INDEX) does not answer: taking torch and torchaudio from the usual index'; \
	fi
endif
	@$(INSTALL) -e '.[plot]'
	@$(BIN)/python -m codec.torchaudio_libraries
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	@echo 'installing the development tools into $(VENV)'
	@$(INSTALL) -e '.[dev]'
	@touch $@

$(VENV)/.all: $(VENV)/.dev
	@echo 'installing the measuring instruments and music21 into $(VENV)'
	@$(INSTALL) -e '.[dev,scores,evaluate]'
	@touch $@

setup: $(VENV)/.base ## create .venv

song: $(VENV)/.base ## write song.wav (PROMPT="...", DURATION=10, SEED=..., OUT=song.wav)
	@$(BIN)/partita generate "$$PROMPT" --duration $(DURATION) --output '$(OUT)' \
		$(if $(SEED),--seed $(SEED))

tiny: $(VENV)/.all ## train the model that ships, packages to figures: days, may be stopped at will
	@$(BIN)/python -m pipelines.commands.recipe --workers $(WORKERS)

demo: $(VENV)/.base ## train every part on an hour of real music for minutes, then render
	@test -d /usr/share/games/singularity || $(DEMO_MUSIC) || { $(AS_ROOT) apt-get update && $(DEMO_MUSIC); }
	@$(BIN)/python -m pipelines.commands.recipe configs/recipes/demo.yaml --folder demo

test: $(VENV)/.dev ## the fast tests (WORKERS=2)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test-all: $(VENV)/.all ## all tests, also those that take minutes or need more packages
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m ''

lint: $(VENV)/.dev ## ruff and the rule which package may import which
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/lint-imports

types: $(VENV)/.dev ## mypy
	@$(BIN)/mypy

check: test lint types ## what CI runs

clean: ## remove the environment (and nothing else)
	@rm -rf $(VENV)
