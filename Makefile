# Everything a developer does with coulee. `make` alone lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
JOBS ?= 4

.PHONY: help demo test lint types unit coverage sweep reloads failover grpc websockets properties fuzz bench versions docs clean system

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("coulee needs Python 3.11 or later; say which with: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

system:  ## install the programs that some tests use, where this is Debian and may be done
	@tests/install-system-packages

demo: $(STAMP)  ## run the demo: three origins, the proxy, a line for each exchange
	@$(BIN)/coulee demo

test: $(STAMP) system lint unit  ## everything that must hold before a change is kept

lint: $(STAMP)  ## ruff, mypy, pyright, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports

unit: $(STAMP)
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile

coverage: $(STAMP)  ## branch coverage of the core and of load balancing, by the fast tests
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest -q tests/core tests/lb tests/backends tests/server tests/conformance
	$(BIN)/python -m coverage combine -q
	$(BIN)/python -m coverage report --skip-covered --show-missing --include='core/*,lb/*'

sweep: $(STAMP)  ## the simulation over many more seeds, and all cases of Autobahn: make sweep SEEDS=20000
	WEBSOCKET_LONG=1 $(BIN)/python -m pytest -q -s --timeout 0 tests/interop/test_autobahn.py
	SEEDS=$(or $(SEEDS),20000) $(BIN)/python -m pytest -q -s --timeout 0 tests/simulation

reloads: $(STAMP)  ## twenty reloads and five killed workers under the load of wrk
	RELOADS=$(or $(RELOADS),20) KILLS=$(or $(KILLS),5) $(BIN)/python -m pytest -q -s --timeout 0 tests/interop/test_reload_under_load.py

failover: $(STAMP)  ## twenty rounds of origins that die, hang, are slow and come back, on every backend, under the load of wrk
	FAILOVERS=$(or $(FAILOVERS),20) $(BIN)/python -m pytest -q -s --timeout 0 tests/interop/test_failover.py

grpc: $(STAMP)  ## HTTP/2 and gRPC with real programs at full length, on every backend: many calls, large bodies, floods
	HTTP2_LONG=1 $(BIN)/python -m pytest -q -s --timeout 0 tests/interop/test_grpc.py tests/interop/test_http2_*.py

websockets: $(STAMP)  ## WebSocket with real programs at full length, on every backend: all cases of Autobahn, many connections, large streams
	WEBSOCKET_LONG=1 $(BIN)/python -m pytest -q -s --timeout 0 tests/interop/test_autobahn.py tests/interop/test_event_stream.py tests/interop/test_websocket_*.py

properties: $(STAMP)  ## the properties with many more examples
	HYPOTHESIS_PROFILE=fuzz $(BIN)/python -m pytest -q --timeout 0 tests/core tests/lb tests/differential

fuzz: $(STAMP)  ## fuzz the codecs with atheris, and keep what reaches new code: make fuzz MINUTES=10 TARGET=http2
	@$(BIN)/python -c 'import atheris' 2>/dev/null || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary atheris --editable '.[fuzz]' 2>/dev/null || \
		{ echo "make fuzz: no wheel of atheris for $$($(BIN)/python -V) can be installed; with a Python that has one: make clean, then make fuzz PYTHON=python3.12"; exit 1; }
	@$(BIN)/python -m fuzz $(TARGET) --minutes $(or $(MINUTES),10)

bench: $(STAMP)  ## CPU time per request and memory per connection, beside nginx, a relay, aiohttp, Caddy and node
	@tests/benchmarks/install $(BIN)/python
	$(BIN)/python -m tests.benchmarks

versions: $(STAMP)  ## the tests on every CPython from 3.11 on that this machine has
	@tests/every-version

docs: $(STAMP)  ## build the documentation into docs/_build/html
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

clean:  ## remove everything that was made here
	rm -rf $(VENV) .venv-* .bench docs/_build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage* dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
