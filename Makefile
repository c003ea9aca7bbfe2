# Each target makes what it needs: a virtual environment in .venv, from python3 (or PYTHON=...) 3.11 or newer.
PYTHON ?= python3
VENV ?= .venv
RESOLUTION ?= highest
BIN = $(VENV)/bin

.PHONY: bench demo drain-proof fuzz image test test-cluster lint types format clean help

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

demo: $(VENV)-demo/ready  ## who called, from where, with what, and the result
	@$(VENV)-demo/bin/podproof demo

# Else each of the hundreds of processes that the tests start compiles again all that it imports.
test: export PYTHONDONTWRITEBYTECODE =
test: $(VENV)/ready  ## the normal tests, with branch coverage
	@rm -f .coverage .coverage.*
	$(BIN)/coverage run -m pytest -q -n 3 --dist worksteal $(ARGS)
	$(BIN)/coverage combine -q
	$(BIN)/coverage report

test-cluster: $(VENV)/ready  ## the integration tests, on the cluster that KUBECONFIG names
	$(BIN)/python -m pytest -q tests/integration $(ARGS)

image: $(VENV)/ready  ## what the integration tests run in their pods: made with the network, which they do without
	$(BIN)/python -m tests.integration.images $(ARGS)

drain-proof: $(VENV)/ready  ## SIGTERM under load, with and without the drain, on every server
	$(BIN)/python -m tests.process.drain.proof $(ARGS)

bench: $(VENV)/ready  ## what the check costs, beside what one would do instead
	$(BIN)/python -m benchmarks $(ARGS)

fuzz: $(VENV)/ready  ## the property tests with a longer budget
	HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest -q -n 2 tests/security $(ARGS)

lint: $(VENV)/ready  ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/ready  ## strict types
	$(BIN)/mypy

format: $(VENV)/ready  ## put the style right
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

$(VENV)/ready: pyproject.toml
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP_INSTALL) uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --resolution $(RESOLUTION) --editable . $(EVERYTHING)
	@touch $@

$(VENV)-demo/ready: pyproject.toml
	@$(CHECK_PYTHON)
	@$(PYTHON) -m venv --clear $(VENV)-demo
	@$(PIP_INSTALL) --editable '.[testing,wsgi]'
	@touch $@

# Not podproof[all], by which lowest-direct would take what the extras bring for indirect, and install the highest.
EVERYTHING = --requirements pyproject.toml --all-extras --group dev
# Of the virtual environment that the target is in.
PIP_INSTALL = $(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile
CHECK_PYTHON = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "podproof needs Python 3.11 or newer; \
this is " + sys.version.split()[0] + ". Name one: make PYTHON=python3.12 ...")'

clean:  ## remove what was made
	rm -rf .venv .venv-* .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis dist
