# The two commands: `make lab` shows a cloud, `make test` proves it. Each sets itself up.
.DEFAULT_GOAL := help
SHELL := /bin/bash
VENV := .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.requirements
JUJU ?= lab
SOURCES := src tests

help: ## Say what there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

packages: ## Install the Debian packages of the lab
	@sh tests/lab/setup.sh

env: $(STAMP) ## Make the Python environment

$(STAMP): requirements/dev.txt
	@command -v python3 >/dev/null || sh tests/lab/setup.sh
	@python3 -c 'import ensurepip' 2>/dev/null || sh tests/lab/setup.sh
	@test -x $(PYTHON) || python3 -m venv $(VENV)
	@echo "Installing the Python packages of requirements/dev.txt into $(VENV)"
	@$(VENV)/bin/pip --quiet --disable-pip-version-check install --require-hashes -r requirements/dev.txt
	@touch $@

lab: packages env ## Form a cloud of three machines on this host and show it
	@PYTHONPATH=tests $(PYTHON) -m integration.demo

lab-down: env ## Take that cloud and its machines away
	@tests/lab/bin/lab down

lint: env ## Check style and spelling
	@$(VENV)/bin/ruff check $(SOURCES)
	@$(VENV)/bin/ruff format --check --quiet $(SOURCES)
	@$(VENV)/bin/codespell $(SOURCES) docs *.md *.yaml

types: env ## Check types
	@$(VENV)/bin/basedpyright --level error

format: env ## Put the code into shape
	@$(VENV)/bin/ruff format $(SOURCES)
	@$(VENV)/bin/ruff check --fix-only $(SOURCES)

unit: env ## Run the unit tests: no daemons, seconds
	@$(PYTHON) -m pytest tests/unit

lab-test: packages env ## Run the lab's own tests
	@$(PYTHON) tests/twice.py tests/lab/tests

integration: env ## Run the integration tests; JUJU=real takes the current Juju controller
	@if [ "$(JUJU)" = lab ]; then sh tests/lab/setup.sh; fi
	@JUJU=$(JUJU) $(PYTHON) tests/twice.py tests/integration

bench: packages env ## Measure formation against the daemons alone, and a no-op hook
	@PYTHONPATH=tests $(PYTHON) -m integration.bench

joins: packages env ## Measure how many machines may join an LXD cluster at once
	@PYTHONPATH=tests $(PYTHON) -m integration.bench_joins

simulation: env ## Form clouds of up to 200 units in a simulation: hooks, tokens, whether it ends
	@PYTHONPATH=tests:src $(PYTHON) -m simulation_table

POINTS ?= 200
SEED ?= 1
LABS ?= 2
faults: packages env ## Kill hooks at calls: POINTS= or ALL=1, SEED=, LABS=; SINGLE=1, COMBINE=1, CHANGES=1
	@PYTHONPATH=tests $(PYTHON) -m integration.faults_matrix --points $(POINTS) --seed $(SEED) \
	  --labs $(LABS) $(if $(ALL),--all) $(if $(SINGLE),--single) $(if $(COMBINE),--combined) \
	  $(if $(CHANGES),--changes)

test: lint types unit lab-test integration ## Everything that has to pass

requirements: env ## Pin the requirements anew, with hashes
	@for name in charm dev; do $(VENV)/bin/uv pip compile --quiet --universal --python-version 3.10 \
	  --generate-hashes --no-header --no-emit-index-url requirements/$$name.in -o requirements/$$name.txt; done

charm: env ## Pack the charm with the lab's packer, into build/microcloud.charm
	@PYTHONPATH=tests $(PYTHON) -c 'from pathlib import Path; from lab.pack import pack; print(pack(Path("."), Path("build/microcloud.charm")))'

clean: ## Remove what was built
	@rm -rf build .pytest_cache .ruff_cache .hypothesis

.PHONY: help packages env lab lab-down lint types format unit lab-test integration bench joins faults simulation test requirements charm clean
