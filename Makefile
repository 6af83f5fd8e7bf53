# Everything runs in .venv, which `make` makes itself with plain python3 and pip.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest
BOTH := -n 2 --dist worksteal  # two processes, each with its broker: many tests wait for one

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all check plain bounds kafka crash chaos soak bench bench-kernels bench-kills bench-words broker clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(STAMP) ## watch vectors learn from generated traffic (SECONDS=30 JSON=1 PORT=8080)
	@$(BIN)/livevec demo $(if $(SECONDS),--seconds $(SECONDS)) $(if $(filter-out 0,$(JSON)),--json) $(if $(PORT),--port $(PORT))

test: $(STAMP) ## the tests, Kafka's too where Java and Maven are there
	@$(PYTEST) $(BOTH) -m "not slow" $(ARGS)

test-all: $(STAMP) ## every test, and the kernels again in plain Python and with bounds checks
	@$(PYTEST) $(BOTH) $(ARGS)
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target plain bounds

check: $(STAMP) ## format, lint, types and the guards of the house
	@$(BIN)/ruff format --check --quiet . || { echo "check: expected formatted files; run: $(BIN)/ruff format ." >&2; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(PYTEST) tests/guards

plain: $(STAMP) ## the kernels' tests without the JIT
	@NUMBA_DISABLE_JIT=1 $(PYTEST) tests/kernels

bounds: $(STAMP) ## the kernels' tests with bounds checks
	@NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR="$(CURDIR)/.cache/bounds" $(PYTEST) tests/kernels

kafka: $(STAMP) ## the tests against a real broker (LIVEVEC_TEST_BROKER=host:port names one)
	@$(PYTEST) -m kafka $(ARGS)

crash: $(STAMP) ## the tests that kill processes
	@$(PYTEST) -m crash $(ARGS)

chaos: $(STAMP) ## kills, take-overs and broker restarts while clicks flow (KILLS=100 CLICKS=1000000 SEED=1 PARTITIONS=8)
	@$(BIN)/python -m tests.system.chaos $(if $(KILLS),--kills $(KILLS)) $(if $(CLICKS),--clicks $(CLICKS)) $(if $(SEED),--seed $(SEED)) $(if $(PARTITIONS),--partitions $(PARTITIONS))

soak: $(STAMP) ## a daemon at a steady rate for long: memory, lag, warnings (MINUTES=20 RATE=20000)
	@$(BIN)/python -m tests.system.soak $(if $(MINUTES),--minutes $(MINUTES)) $(if $(RATE),--rate $(RATE))

bench: $(STAMP) ## how fast each stage is (DATA=clicks.csv takes yours, QUICK=1 is short)
	@$(BIN)/python -m tests.bench.bench_stages $(if $(DATA),--data "$(DATA)") $(if $(filter-out 0,$(QUICK)),--quick)

bench-kernels: $(VENV)/.bench ## the training kernel on one core, beside gensim and sgemm (QUICK=1 is short)
	@OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m tests.bench.bench_kernels $(if $(filter-out 0,$(QUICK)),--quick)

bench-words: $(STAMP) ## whether neighbours share rare words (DATA=clicks.csv ITEMS=items.csv TEXT=description)
	@test -n "$(DATA)" -a -n "$(ITEMS)" || { echo "bench-words: expected DATA=FILE of clicks and ITEMS=FILE of item_id and a text" >&2; exit 1; }
	@$(BIN)/python -m tests.bench.bench_words --data "$(DATA)" --items "$(ITEMS)" $(if $(TEXT),--text "$(TEXT)")

bench-kills: $(STAMP) ## SIGKILLs over a file against a run never stopped (DATA=clicks.csv KILLS=20 SECONDS=60)
	@test -n "$(DATA)" || { echo "bench-kills: expected DATA=FILE, found none; name a CSV of user_id, item_id and ts in ms" >&2; exit 1; }
	@$(BIN)/python -m tests.system.kills --data "$(DATA)" $(if $(KILLS),--kills $(KILLS)) $(if $(SECONDS),--seconds $(SECONDS))

broker: $(STAMP) ## a local Kafka to play with, until Ctrl-C (BROKER_PORT=9092)
	@BROKER_PORT="$(BROKER_PORT)" $(BIN)/python -m deploy.broker.play

clean: ## remove what make has made, .venv too
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

install: $(STAMP) ## only make .venv

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "livevec: expected Python 3.11 or newer, found no $(PYTHON): apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "livevec: expected Python 3.11 or newer, found $$($(PYTHON) --version 2>&1); name another one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "livevec: expected Python's venv and ensurepip, found none for $(PYTHON): apt-get install python3-venv" >&2; exit 1; }
	@test -x $(BIN)/pip || { echo "making $(VENV) ..."; $(PYTHON) -m venv $(VENV); }
	@echo "installing livevec and what it needs into $(VENV) (a minute or two) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

$(VENV)/.bench: $(STAMP)
	@echo "installing gensim, to measure against ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@touch $@
