# The one door: CI calls these targets only.
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
  $$python -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$python && exit; done; echo python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp

# A .venv whose Python has vanished, or is too old, is made anew.
ifneq ($(shell $(BIN)/python -c '$(NEW_ENOUGH)' 2>/dev/null && echo works),works)
.PHONY: $(STAMP)
endif

.PHONY: setup demo test test-all check bench lock test-tools stack stack-tools test-stack clean help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort

setup: $(STAMP) ## a .venv with everything, from the locked requirements

$(STAMP): requirements/dev.txt pyproject.toml
	@$(BIN)/python -c '$(NEW_ENOUGH)' 2>/dev/null || { \
	  $(PYTHON) -c '$(NEW_ENOUGH)' 2>/dev/null || { echo "Callscope needs Python 3.11 or newer, and $(PYTHON) is" \
	    "$$($(PYTHON) -V 2>&1): install one, or name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.13" >&2; exit 1; }; \
	  rm -rf $(VENV); $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "$(PYTHON) cannot make a .venv: install its venv" \
	    "(Debian: python3-venv), or name another: make $(MAKECMDGOALS) PYTHON=/path/to/python3.13" >&2; exit 1; }; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $(STAMP)

demo: setup ## real MCP servers, members and bots, and what Callscope sees of them, until Ctrl-C
	$(BIN)/callscope demo

# One process for each core; a file's tests stay together, because they share servers and gateways. Files start in the order
# of collection: tests/conftest.py puts the longest first.
PYTEST := $(BIN)/python -m pytest --ignore=tests/stack --numprocesses=auto --dist=loadfile --no-loadscope-reorder

test: setup ## the tests that need nothing but what setup installs (at most 5 minutes on two cores)
	$(PYTEST) -m "not backend and not slow"

test-all: setup ## all tests but test-stack's; without its back end a test is skipped, and in CI it fails
	$(PYTEST)

check: setup ## format, lint, types, import contract, generated files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m dashboards --check

.PHONY: generate
generate: setup ## write the dashboards' JSON from their source
	$(BIN)/python -m dashboards

bench: setup ## measure the relay against a bare pass-through, and the observer's speed
	$(BIN)/python -m bench

lock: ## write requirements/*.txt from pyproject.toml (needs uv)
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --quiet -o requirements/runtime.txt
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url --quiet -o requirements/dev.txt

test-tools: ## install back ends for test-all: Debian's prometheus, prometheus-alertmanager, postgresql (as root)
	apt-get update -qq
	mkdir -p /etc/postgresql-common && test -e /etc/postgresql-common/createcluster.conf || \
	  echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.conf
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends prometheus prometheus-alertmanager postgresql

stack: setup ## Prometheus, Alertmanager and a Collector as native processes, with the demo, until Ctrl-C
	$(BIN)/python -m stack

stack-tools: setup ## build Prometheus and a Collector from source, outside the checkout (needs Go; takes minutes, once)
	$(BIN)/python -m stack tools

test-stack: setup ## the dashboards, alerts and configurations against the running stack (needs stack-tools, test-tools)
	$(BIN)/python -m pytest tests/stack -o faulthandler_timeout=600  # one test waits five minutes for an alert

clean: ## remove what setup and the tests made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# npm packages for tests: $(call npm_ci,folder of package.json,folder below .tools)
define npm_ci
	mkdir -p .tools/$(2)
	cp $(1)/package.json $(1)/package-lock.json $(1)/.npmrc .tools/$(2)/
	cd .tools/$(2) && npm ci --ignore-scripts --loglevel=error
endef

.PHONY: grammar-tools
grammar-tools: ## install the grammars of LogQL and TraceQL for test-all (needs npm)
	$(call npm_ci,tests/dashboards/grammars,grammars)

.PHONY: conformance-tools
conformance-tools: ## install the official MCP conformance suite, and a Node that runs it, for test-all (needs npm)
	$(call npm_ci,tests/conformance,conformance)

CLIENTS := .tools/clients

.PHONY: client-tools
client-tools: ## install other MCP clients and servers for test-all: official SDKs, fastmcp, reference servers (needs npm)
	$(call npm_ci,tests/clients,clients/node)
	for name in sdk1 fastmcp servers; do \
	  $(PYTHON) -m venv $(CLIENTS)/$$name && $(CLIENTS)/$$name/bin/python -m pip install --quiet \
	    --disable-pip-version-check --no-deps --require-hashes -r tests/clients/requirements/$$name.txt || exit 1; \
	done
