# make demo    the chat on http://127.0.0.1:8000; HOST, PORT and MESSAGEBUS_URL may be set. Ctrl-C ends it.
# make test    everything that must pass: style, types, the tests of the client, the tests of the server
# make lint, make types, make test-js, make test-py    each of them by itself
# make fuzz    sends servers and parsers nonsense, two minutes of each kind; FUZZ_SECONDS and FUZZ_SEED may be set
# make js      builds static/js from static/js/src, for a commit that changes the client
# make docs    builds the documentation into site/, without the network once its tools are there
# make reference  writes the parts of docs/ that come from the code, for a commit that changes an option or the command
# make bench   measures it beside others, about 10 minutes; WORK="fan-out storm": only these; QUICK=1: a short run
# make clean   removes what these made
#
# Needs Python 3.10 or newer; the rest is fetched into .venv and node_modules, or through apt where that is allowed.

SHELL := /bin/bash
.DELETE_ON_ERROR:
.SUFFIXES:

PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
WORK ?=
QUICK ?=
# More arguments for pytest, such as: make test-py PYTEST_ARGS="-k nginx"
PYTEST_ARGS ?=

# By their path from here, so that this works in a directory with blanks in its name.
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
NODE := node_modules/.stamp
BENCH_TOOLS := redis-server nginx libnginx-mod-nchan chromium nodejs npm
# Where these are not to be had, the bench goes without them, and says so.
BENCH_RUBY := ruby puma ruby-actioncable ruby-redis
BENCH_NODE := bench/servers/node_modules/.stamp
TEST_TOOLS := redis-server postgresql nginx chromium firefox-esr webkit2gtk-driver xvfb nodejs openssl curl systemd
DESCRIBED := setup.cfg pyproject.toml
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input -q

export PYTHON

.PHONY: demo test fuzz check lint types test-js test-py js docs reference coverage bench tools bench-tools clean

demo: export HOST := $(HOST)
demo: export PORT := $(PORT)
# exec: what make waits for, and passes its signals on to, is the server itself.
demo: $(STAMPS)/demo
	@exec $(BIN)/python -m messagebus serve demo.app:app --bind "$$HOST:$$PORT"

# One after the other, and pytest's summary last.
test:
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory types
	@$(MAKE) --no-print-directory test-js
	@$(MAKE) --no-print-directory test-py

check: test

lint: $(STAMPS)/test
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .

types: $(STAMPS)/test
	$(BIN)/python -m mypy

# Node 18, which Debian 12 has, keeps the browsers' crypto behind a flag.
test-js: $(NODE)
	@flag=$$(node -p 'parseInt(process.versions.node) < 20 ? "--experimental-global-webcrypto" : ""') && \
	NODE_OPTIONS="$$NODE_OPTIONS $$flag" node --test tests/js/*.test.*js

js: $(NODE)
	npm run --silent build

# The variable silences an advertisement of the theme's. --strict: a link or a name that leads nowhere fails.
docs: $(STAMPS)/docs
	DISABLE_MKDOCS_2_WARNING=true NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict
	@echo "site/index.html is built; to search in it: python3 -m http.server -d site"

reference: $(STAMPS)/demo
	$(BIN)/python -m scripts.reference

# Real servers and browsers share the cores with each other here. Up to ten tests that failed among them are tried once
# more, alone: both summaries are printed, and what fails alone as well fails the run. SECOND_TRY=0 leaves that out.
SECOND_TRY ?= 10
test-py: $(STAMPS)/test $(STAMPS)/docs $(NODE)
	SECOND_TRY=$(SECOND_TRY) scripts/run-tests $(BIN)/python $(PYTEST_ARGS)

# The nonsense that `make test` sends for seconds, for as long as it takes to find something; FUZZ_SEED=n repeats a run.
FUZZ_SECONDS ?= 120
fuzz: $(STAMPS)/test
	FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/python -m pytest -q -s tests/fuzz

coverage: $(STAMPS)/test $(STAMPS)/docs $(NODE)
	$(BIN)/python -m pytest -q --cov --cov-report=term $(PYTEST_ARGS)

# exec: Ctrl-C is for the bench, which stops the servers it has started.
bench: $(STAMPS)/bench $(BENCH_NODE)
	@exec $(BIN)/python -m bench $(WORK) $(if $(QUICK),--quick)

# --- what they need ---

# Not --upgrade-deps: the pip that comes with Python will do.
$(BIN)/python:
	@scripts/ensure-tools python-venv
	"$$PYTHON" -m venv $(VENV)

# compat: other ways of editable installing leave the clone's own directory in the way of programs that lie beside it.
$(STAMPS)/demo: $(DESCRIBED) | $(BIN)/python
	@echo 'Installing what Python needs into $(VENV): a minute or two, the first time.'
	$(PIP) install --config-settings editable_mode=compat -e .
	@mkdir -p $(@D)
	@touch $@

$(STAMPS)/test: $(DESCRIBED) | $(BIN)/python
	@echo 'Installing what Python needs into $(VENV): a minute or two, the first time.'
	$(PIP) install --config-settings editable_mode=compat -e '.[test,dev]'
	@mkdir -p $(@D)
	@touch $@ $(STAMPS)/demo

$(STAMPS)/docs: $(DESCRIBED) | $(BIN)/python
	@echo 'Installing what Python needs into $(VENV): a minute or two, the first time.'
	$(PIP) install --config-settings editable_mode=compat -e '.[docs]'
	@mkdir -p $(@D)
	@touch $@ $(STAMPS)/demo

$(STAMPS)/bench: $(DESCRIBED) | $(BIN)/python
	@echo 'Installing what Python needs into $(VENV): a minute or two, the first time.'
	$(PIP) install --config-settings editable_mode=compat -e '.[bench]'
	@mkdir -p $(@D)
	@touch $@ $(STAMPS)/demo

# Asked every time, which takes no time: a tool may have been removed since.
tools:
	@scripts/ensure-tools $(TEST_TOOLS)

bench-tools:
	@scripts/ensure-tools $(BENCH_TOOLS)
	@scripts/ensure-tools $(BENCH_RUBY) || echo 'The bench goes on without ActionCable.'

$(BENCH_NODE): bench/servers/package.json | bench-tools
	npm install --prefix bench/servers --no-package-lock --no-audit --no-fund --loglevel=error
	@touch $@

$(NODE): $(wildcard package.json package-lock.json) | tools
	@if [ -e package.json ] && grep -q '"devDependencies"' package.json; then \
	    scripts/ensure-tools npm && \
	    echo 'Installing what the JavaScript tests need into node_modules: a minute, the first time.' && \
	    npm $$([ -e package-lock.json ] && echo ci || echo install --no-package-lock) --no-audit --no-fund --loglevel=error; \
	fi
	@mkdir -p $(@D) && touch $@

clean:
	rm -rf $(VENV) node_modules bench/servers/node_modules build dist site *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
