# Everything runs in .venv, made from uv.lock.  uv itself comes from PyPI.
PYTHON ?= python3
UV := .venv/bin/uv
RUN := $(UV) run --frozen --all-extras
DATA ?=
MAP ?=
FUZZ_SECONDS ?= 60

.DEFAULT_GOAL := help
.PHONY: help demo test fuzz bench lint types contracts docs proto clean

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

.venv/.ready: uv.lock pyproject.toml
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info[:2] <= (3, 13); sys.exit(0 if ok else "fraudsdk needs Python 3.11 to 3.13, this is " + sys.version.split()[0] + "; set PYTHON=python3.12, say")'
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@test -x $(UV) || .venv/bin/python -m pip install --quiet --disable-pip-version-check "uv>=0.9.8,<1"
	@$(UV) sync --frozen --all-extras --inexact --quiet
	@touch $@

demo: .venv/.ready  ## the main job end to end: simulate, train, compile, certify, score (DATA=file MAP=mapping for your own)
	@$(RUN) fraudsdk demo $(if $(DATA),--data "$(DATA)") $(if $(MAP),--map "$(MAP)")

test: .venv/.ready  ## the tests
	@$(RUN) pytest

fuzz: .venv/.ready  ## readers of kept state under a fuzzer, FUZZ_SECONDS each; inputs that break one are put into .fuzz
	@mkdir -p .fuzz
	@for reader in parts log snapshot wire; do PYTHONPATH=.:tests/parity $(RUN) python tests/fuzz/fuzz_readers.py $$reader \
	  .fuzz/$$reader -max_total_time=$(FUZZ_SECONDS) -timeout=20 -artifact_prefix=.fuzz/ || exit 1; done

bench: .venv/.ready  ## latency and throughput gates against peers; writes bench/results and the tables of the documentation
	@$(RUN) pytest --benchmark --benchmark-results=bench/results
	@$(RUN) python bench/tables.py

lint: .venv/.ready  ## ruff: style and formatting
	@$(RUN) ruff check .
	@$(RUN) ruff format --check .

types: .venv/.ready  ## mypy, strict
	@$(RUN) mypy
	@$(RUN) mypy tests/typing/api.py

contracts: .venv/.ready  ## import contracts
	@$(RUN) lint-imports

docs: .venv/.ready  ## write docs/features.md from the catalogue
	@$(RUN) python docs/generate_features.py

proto: .venv/.ready  ## write the Python code of the wire contract from proto/
	@$(RUN) python proto/generate.py

clean:  ## forget the environment and what the demo made
	rm -rf .venv demo .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks .fuzz
