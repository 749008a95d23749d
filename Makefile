# Everything happens in .venv, beside this file. PYTHON may name another interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# faiss-cpu and faiss-gpu install the same module: take one, by whether there is a card.
FAISS := $(shell command -v nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet --prefer-binary -c constraints.txt

# A process for each core, and no more than memory takes: every one of them imports torch.
PYTEST := $(BIN)/pytest -n logical --maxprocesses 8

.PHONY: demo trial test test-slow torture mypy pytest lint ui docs clean
.DELETE_ON_ERROR:

demo: $(VENV)/.installed  ## the main job, offline: a real pool becomes explained subsets
	$(BIN)/winnow demo

trial: $(VENV)/.installed  ## did the demo's subset help? small models on it and on random rows, some minutes
	$(BIN)/winnow demo --folder demo/trial --trial

test: $(VENV)/.installed-dev  ## ruff, then mypy --strict beside all tests but the slow ones
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(MAKE) --no-print-directory -j2 mypy pytest

test-slow: $(VENV)/.installed-dev  ## the long tests: draws against their law, kills, every kind of damage
	$(PYTEST) --dist worksteal -m "slow and not torture" --durations=20

torture: $(VENV)/.installed-dev  ## further cases of the long tests: every kind of damage to every file; an hour or two
	$(PYTEST) --dist worksteal -m torture

mypy: $(VENV)/.installed-dev
	$(BIN)/mypy

pytest: $(VENV)/.installed-dev
	$(PYTEST) --dist loadscope -m "not slow"  # a module's tests share a process, and what they set up

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/mypy

docs: $(VENV)/.installed-dev  ## the docs as a site that opens from disk: build/site/index.html
	$(BIN)/python -m website

ui: $(VENV)/.installed  ## the Dagster UI on http://127.0.0.1:3000
	$(BIN)/winnow ui

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "winnow needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing winnow into $(VENV) (a few minutes, once)"
	$(PIP) -e '.[$(FAISS),demo]'
	$(BIN)/python -m selection.kernels
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "installing what the tests need"
	$(PIP) -e '.[$(FAISS),demo,dev]'
	@touch $@

clean:  ## forget the environment and the demo; stores elsewhere stay
	rm -rf $(VENV) demo
