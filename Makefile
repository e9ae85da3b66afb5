# Everything a user or CI needs; `make help` lists it.

PYTHON ?= python3
VENV ?= .venv
# Any pip requirement for torch, e.g. make demo TORCH=torch==2.9.1; one that is in the environment already is kept.
# On Linux this default is the CUDA build, which runs on CPUs too.
TORCH ?= torch==2.13.0
# Processes that run tests, each the files it takes.
JOBS ?= $(shell nproc || echo 2)

BIN := $(VENV)/bin
# For every platform and Python that the package is for, in one file.
LOCK := $(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
	--annotation-style line --custom-compile-command "make lock" --extra s3 --extra otel

.DEFAULT_GOAL := help
.PHONY: help demo test check fmt openapi dashboards studio lock bench clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.demo ## install, start everything, generate out.mp4, show latency and savings, stop everything
	$(BIN)/ripple demo --output out.mp4

test: $(VENV)/.dev ## install, then style, types, architecture and the whole test suite
	$(MAKE) --no-print-directory check
	$(BIN)/python -m pytest --numprocesses $(JOBS) --maxprocesses 4 --dist loadfile --no-loadscope-reorder

check: $(VENV)/.dev ## style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/oxlint --deny-warnings --ignore-pattern vendor.js server/static

fmt: $(VENV)/.dev ## format and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

openapi: $(VENV)/.dev ## write openapi/openapi.json and the client's models from the code
	$(BIN)/python -m server.openapi
	$(BIN)/python openapi/generate_client.py

dashboards: $(VENV)/.dev ## write docker/grafana/dashboards from the code
	PYTHONPATH=docker $(BIN)/python -m grafana.build

studio: ## bundle what the page takes from npm into server/static/vendor.js, with its licences (needs Node.js)
	cd server/vendor && npm ci --silent && npm run --silent build
	cd server/vendor/node_modules && for package in preact htm eventsource eventsource-parser ssim.js; do \
		echo "== $$package"; cat $$package/LICENSE*; echo; done > ../../static/vendor.LICENSES.txt

# The server takes the versions of the worker. Pins that still fit stay; remove the files to renew them all.
lock: $(VENV)/.dev ## pin what the images install, with hashes, in docker/requirements
	echo "$(TORCH)" | $(LOCK) --extra worker --constraints - --output-file docker/requirements/worker.txt
	$(LOCK) --constraints docker/requirements/worker.txt --output-file docker/requirements/server.txt

bench: $(VENV)/.dev ## fidelity against savings on the built-in model
	$(BIN)/ripple bench fidelity

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info

$(VENV)/.torch:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/python -m pip install --quiet $(TORCH)
	touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	$(BIN)/python -m pip install --quiet -e ".[worker]"
	touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	$(BIN)/python -m pip install --quiet -e ".[worker,s3,otel,bench,dev]"
	touch $@ $(VENV)/.demo
