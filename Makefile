# The one door: CI calls these targets only.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp

.PHONY: setup demo test check bench lock test-tools clean help

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort

setup: $(STAMP) ## a .venv with everything, from the locked requirements

$(STAMP): requirements/dev.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $(STAMP)

demo: setup ## real MCP servers, members and bots, and what Callscope sees of them, until Ctrl-C
	$(BIN)/callscope demo

test: setup ## every test that this machine has the back ends for
	$(BIN)/python -m pytest

check: setup ## format, lint, types, the import contract
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup ## ratios against a bare pass-through, and the observer's speed
	$(BIN)/python -m bench

lock: ## write requirements/*.txt anew from pyproject.toml (needs uv)
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --quiet -o requirements/runtime.txt
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url --quiet -o requirements/dev.txt

test-tools: ## the back ends that tests run against: Debian's prometheus (as root)
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends prometheus

clean: ## remove what setup and the tests made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.PHONY: conformance-tools
conformance-tools: ## the official MCP conformance suite, and a Node that runs it (takes npm)
	mkdir -p .tools/conformance
	cp tests/conformance/package.json tests/conformance/package-lock.json tests/conformance/.npmrc .tools/conformance/
	cd .tools/conformance && npm ci --ignore-scripts --loglevel=error

CLIENTS := .tools/clients

.PHONY: client-tools
client-tools: ## other MCP clients and servers that are tested with: official SDKs, fastmcp, reference servers (takes npm)
	mkdir -p $(CLIENTS)/node
	cp tests/clients/package.json tests/clients/package-lock.json tests/clients/.npmrc $(CLIENTS)/node/
	cd $(CLIENTS)/node && npm ci --ignore-scripts --loglevel=error
	for name in sdk1 fastmcp servers; do \
	  $(PYTHON) -m venv $(CLIENTS)/$$name && $(CLIENTS)/$$name/bin/python -m pip install --quiet \
	    --disable-pip-version-check --require-hashes -r tests/clients/requirements/$$name.txt || exit 1; \
	done
