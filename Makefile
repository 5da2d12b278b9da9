# The verbs a person types are the verbs CI runs (.ci/run).

PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
DEMO ?= generate "Explain gravity to a child." --exits 24,27 --threshold 0.97 --kv fill --max-tokens 64

.DEFAULT_GOAL := help
.PHONY: help venv install check fix test test-full demo reference clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

venv: $(VENV)/.venv.stamp  ## make the virtual environment

install: $(VENV)/.test.stamp  ## install offramp with everything its checks and tests need

check: install  ## formatting, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: install  ## format, and fix what lint can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: install  ## the tests
	$(BIN)/python -m pytest

test-full: install  ## the tests with their long products
	$(BIN)/python -m pytest -m "full or not full"

demo: $(VENV)/.torch.stamp  ## fetch the default model and generate with exits on
	$(BIN)/offramp $(DEMO)

reference: install  ## regenerate the committed reference outputs
	$(BIN)/python scripts/reference.py

clean:  ## remove everything make has made
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.venv.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo "error: offramp needs Python 3.10 or newer; \`$(PYTHON)\` is not" >&2; \
		echo "hint: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.torch.stamp: $(VENV)/.venv.stamp pyproject.toml constraints.txt
	$(PIP) install $(PIP_ARGS) -c constraints.txt -e '.[torch]'
	touch $@

$(VENV)/.test.stamp: $(VENV)/.torch.stamp examples/plugin-criterion/pyproject.toml
	$(PIP) install $(PIP_ARGS) -c constraints.txt -e '.[torch,test,dev]' -e examples/plugin-criterion
	touch $@
