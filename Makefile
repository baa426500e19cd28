# The doors of this repository: `make demo` and `make test` need nothing but Python 3.11, make, git and a package registry.
# Paths are relative, so that a checkout may lie under a path with spaces.

SHELL := /bin/bash
.DEFAULT_GOAL := help
export UV_PYTHON_DOWNLOADS := never
PYTHON ?= python3
BIN := .venv/bin

# uv is used where it is installed; otherwise it comes from PyPI into a private environment.
UV := $(shell uv --version >/dev/null 2>&1 && echo uv || echo .venv-tools/bin/uv)

NOT_FETCHED := echo "error: the packages could not be fetched."; \
  echo "  → UnknownIssuer, or a certificate that fails: behind a proxy that opens TLS, name its certificates, then run this command again:"; \
  echo "    export UV_SYSTEM_CERTS=true REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt"; exit 1

.PHONY: help env demo test test-apart test-fast faults drill bench lint format up down containers schemas openapi docs compose asyncapi clean

help: ## Show these targets.
	@awk -F ':.*## ' '/^[a-z][a-z -]*:.*## / { n = split($$1, names, " "); for (i = 1; i <= n; i++) printf "%-16s%s\n", names[i], $$2 }' Makefile

env: .venv/.synced ## Create or update the environment from uv.lock.

.venv/.synced: uv.lock pyproject.toml | python $(filter .venv-tools/%,$(UV))
	@echo "Installing the locked packages into .venv …"
	@$(UV) sync --frozen --python "$(PYTHON)" || { $(NOT_FETCHED); }
	@touch $@

.venv-tools/bin/uv: | python
	@echo "uv is not installed: fetching it from PyPI into .venv-tools …"
	@$(PYTHON) -m venv .venv-tools || { rm -rf .venv-tools; \
	  echo "error: $(PYTHON) cannot make environments (ensurepip is missing)."; \
	  echo "  → On Debian or Ubuntu: apt-get install python3-venv     then run this command again."; exit 1; }
	@.venv-tools/bin/python -m pip install --quiet --disable-pip-version-check uv || { $(NOT_FETCHED); }

.PHONY: python
python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "error: Python 3.11 or newer is needed, and $(PYTHON) is not it."; \
	  echo "  → Install it (Debian: apt-get install python3 python3-venv), or name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12"; exit 1; }

demo: env ## Start a mesh of its own on free ports, run the demo on it, stop it again.
	@$(BIN)/mesh demo $(ARGS)

test: env ## Run the whole suite: the tests of one mesh, and beside them those that need none or have their own.
	@$(BIN)/python -m pytest -n 2 --max-worker-restart=0 $(ARGS)

test-apart: env ## Run the flows and the isolation suite with two databases, two connectors and two data planes: nothing may work only because all share one.
	@$(BIN)/python -m pytest tests/flows tests/isolation --databases=2 --data-planes=2 $(ARGS)

FAST := tests/rules tests/kit tests/contracts tests/flows
test-fast: env ## Run rules, kit, contracts and flows, or TESTS=tests/org, on a mesh that is kept between runs (ended by: make test-fast-down).
	@MESH_TEST_STATE="$(CURDIR)/.mesh-test" $(BIN)/python -m pytest --ignore=tests/contracts/test_how_to.py $(or $(TESTS),$(FAST)) $(ARGS)

.PHONY: test-fast-down
test-fast-down: env ## Remove the mesh that test-fast keeps.
	@MESH_STATE="$(CURDIR)/.mesh-test" $(BIN)/mesh reset --yes

faults: env ## Run the fault suite: every fault under load, judged by one oracle (ARGS="--case kafka --seed 7").
	@$(BIN)/python -m tests.faults.run $(ARGS)

drill: env ## Lose the control plane's database and bring it back from its backup, twice, judged by the oracle.
	@$(BIN)/python -m pytest tests/faults/drill.py $(ARGS)

bench: env ## Measure what docs/performance.md promises (ARGS="signup latency --quick").
	@$(BIN)/python -m tests.bench.run $(ARGS)

lint: env ## Check style, types and layers.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: env ## Lay the code out, its imports in order.
	@$(BIN)/ruff check --quiet --select I --fix .
	@$(BIN)/ruff format --quiet .

up: env ## Start the mesh of this checkout.
	@$(BIN)/mesh up $(ARGS)

down: env ## End it; its data stays.
	@$(BIN)/mesh down

containers: env ## Write the passwords that docker-compose.yml asks for into .env.
	@$(BIN)/mesh containers

schemas openapi docs compose asyncapi: env ## Write this description anew from the code.
	@$(BIN)/python -m deploy.contracts $@

clean: ## Remove what the tools leave behind; environment, state and caches of packages stay.
	@rm -rf build .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
