# Everything is set up on first use, in .venv; what is printed on stdout is the command's own, the rest goes to stderr.
# ARGS goes to the command: make demo ARGS="--json --months 1-4"

SHELL := /bin/sh
VENV ?= .venv
PY := $(VENV)/bin/python
UV := $(VENV)/bin/uv
ARGS ?=
PYTHONS := python3 python3.13 python3.12 python3.11

# Where it is set, every process compiles all that it imports: seconds for each of the workers that the tests start.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test check lock bench bench-compare budget parity kafka faults faults-short clean
.DELETE_ON_ERROR:

help:
	@echo "make demo     a year of real flights through the whole system     ARGS=\"--json --months 1-4\""
	@echo "make test     all tests, real Kafka and Redis included            ARGS=\"-k merge\""
	@echo "make bench    records per second, beside other ways to do it      ARGS=\"--json\""
	@echo "make parity   the same features in stream, reader, backfill, oracle  ARGS=\"--json --short\""
	@echo "make bench-compare REV=main~3   this worker beside that of another revision   ARGS=\"--rounds 6\""
	@echo "make budget   writes the hot path's allocations a record, which a test holds, anew"
	@echo "make check    ruff, mypy, import rules, locks"
	@echo "make faults-short   kills everything, and counts: 12 minutes  ARGS=\"--json --only zombie\""
	@echo "make faults   the same, much longer: hours                    ARGS=\"--json\""
	@echo "make setup    only installs (everything that tests need)"
	@echo "make kafka    only fetches Kafka for tests and benchmarks"
	@echo "make lock     writes requirements/ anew from pyproject.toml; ARGS=--upgrade takes the newest"
	@echo "make clean    removes what was built here"

setup: $(VENV)/.dev

demo: $(VENV)/.demo
	@$(VENV)/bin/weir demo $(ARGS)

test: $(VENV)/.dev
	@sh deploy/system-packages.sh java mvn redis-server promtool git
	@$(PY) -m loadtest.kafka >&2
	@$(PY) -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

bench: $(VENV)/.dev
	@sh deploy/system-packages.sh java mvn redis-server
	@$(PY) -m loadtest.kafka >&2
	@$(VENV)/bin/weir bench $(ARGS)

parity: $(VENV)/.dev
	@sh deploy/system-packages.sh java mvn redis-server
	@$(PY) -m loadtest.kafka >&2
	@$(PY) -m tests.parity $(ARGS)

bench-compare: $(VENV)/.dev
	@test -n "$(REV)" || { echo "which revision? make bench-compare REV=main~3" >&2; exit 2; }
	@sh deploy/system-packages.sh java mvn redis-server git
	@$(PY) -m loadtest.kafka >&2
	@$(PY) -m loadtest.compare $(REV) $(ARGS)

budget: $(VENV)/.dev
	@$(PY) -m loadtest.hot_path --write $(ARGS)

faults-short: FORM :=
faults: FORM := --long
faults faults-short: $(VENV)/.dev
	@sh deploy/system-packages.sh java mvn redis-server
	@$(PY) -m loadtest.kafka >&2
	@$(PY) -m tests.faults $(FORM) $(ARGS)

kafka: $(VENV)/.dev
	@sh deploy/system-packages.sh java mvn
	@$(PY) -m loadtest.kafka

check: $(VENV)/.dev
	@$(VENV)/bin/ruff check .
	@$(PY) -m mypy
	@$(VENV)/bin/lint-imports
	@UV=$(UV) sh requirements/lock.sh --check

lock: $(VENV)/.uv
	@UV=$(UV) sh requirements/lock.sh $(ARGS)

clean:
	@rm -rf $(VENV) .weir demo-output bench-output build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache \
	    .hypothesis .import_linter_cache

# --- what is installed: a stamp for each lock, so that the second call costs nothing -------------------------------

quiet := $(shell test -t 2 || echo --quiet)

define install
	@start=$$(date +%s); echo "installing requirements/$(1).txt into $(VENV)$(2)" >&2; \
	VIRTUAL_ENV=$(VENV) $(UV) pip install $(quiet) --require-hashes --no-build-isolation -r requirements/$(1).txt >&2 && \
	VIRTUAL_ENV=$(VENV) $(UV) pip install $(quiet) --no-deps --no-build-isolation -e . >&2 && \
	echo "installed requirements/$(1).txt in $$(( $$(date +%s) - start )) s" >&2
	@touch $@
endef

$(VENV)/.demo: requirements/demo.txt pyproject.toml $(VENV)/.uv
	$(call install,demo, (with torch: a large download on Linux))

$(VENV)/.dev: requirements/dev.txt pyproject.toml $(VENV)/.uv
	$(call install,dev, (with torch: a large download on Linux))
	@touch $(VENV)/.demo

$(VENV)/.uv: requirements/build.txt
	@start=$$(date +%s); \
	for python in $(PYTHONS); do \
	    $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && break; python=; \
	done; \
	if [ -z "$$python" ]; then echo "Weir needs Python 3.11, 3.12 or 3.13 on the PATH" >&2; exit 1; fi; \
	$$python -m venv $(VENV) >&2 || \
	    { echo "could not make $(VENV); on Debian or Ubuntu: sudo apt-get install python3-venv" >&2; exit 1; }; \
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/build.txt >&2 && \
	echo "made $(VENV) with $$($(PY) -V) in $$(( $$(date +%s) - start )) s" >&2
	@touch $@
