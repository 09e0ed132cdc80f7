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

.PHONY: setup demo test check bench lock test-tools stack stack-tools test-stack clean help

help: ## what there is
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

test: setup ## every test that this machine has the back ends for, but for the native stack's
	$(BIN)/python -m pytest --ignore=tests/stack

check: setup ## format, lint, types, the import contract, generated files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m dashboards --check

.PHONY: generate
generate: setup ## the dashboards' JSON anew, from their source
	$(BIN)/python -m dashboards

bench: setup ## ratios against a bare pass-through, and the observer's speed
	$(BIN)/python -m bench

lock: ## write requirements/*.txt anew from pyproject.toml (needs uv)
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --quiet -o requirements/runtime.txt
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url --quiet -o requirements/dev.txt

test-tools: ## the back ends that tests run against: Debian's prometheus, prometheus-alertmanager, postgresql (as root)
	apt-get update -qq
	mkdir -p /etc/postgresql-common && test -e /etc/postgresql-common/createcluster.conf || \
	  echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.conf
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends prometheus prometheus-alertmanager postgresql

stack: setup ## Prometheus, Alertmanager, Loki and a Collector as native processes, with the demo, until Ctrl-C
	$(BIN)/python -m stack

stack-tools: setup ## build them from source, outside the checkout, and TraceQL's grammar (takes Go, npm; 20 minutes once)
	mkdir -p .tools/traceql
	cp $(addprefix tests/dashboards/traceql_grammar/,package.json package-lock.json .npmrc) .tools/traceql/
	cd .tools/traceql && npm ci --ignore-scripts --loglevel=error
	$(BIN)/python -m stack tools

test-stack: setup ## the dashboards, alerts and configurations against the running stack
	$(BIN)/python -m pytest tests/stack -o faulthandler_timeout=600  # one waits five minutes for an alert

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
	    --disable-pip-version-check --no-deps --require-hashes -r tests/clients/requirements/$$name.txt || exit 1; \
	done
