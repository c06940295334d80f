# Two commands: `make demo` and `make test`. Both set everything up in .venv first; a second call is quick.
PYTHON ?= python3
BIN := .venv/bin
RUN := MPLBACKEND=Agg PYTHONUNBUFFERED=1 $(BIN)

.PHONY: demo test lint types tests torture docs clean

demo: .venv/demo.stamp
	$(RUN)/scaleseg demo --out scaleseg-demo

test: lint types tests

lint: .venv/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/dev.stamp
	$(BIN)/mypy

tests: .venv/dev.stamp
	rm -f .coverage .coverage.*
	$(RUN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term -q

docs: .venv/docs.stamp
	$(BIN)/python docs/generate.py
	rm -rf site
	$(BIN)/zensical build --strict --clean

# Not part of `make test`: 200 kills, 5,000 damaged files, every full disk, a hundred Ctrl-C a verb. Up to an hour.
torture: .venv/dev.stamp
	SCALESEG_TORTURE=long OMP_NUM_THREADS=1 $(RUN)/python -m pytest -n 2 --dist loadgroup -q \
		tests/test_torture.py tests/test_torture_kills.py tests/test_bad_input.py tests/test_distributed.py

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	$(PYTHON) -m venv .venv

.venv/demo.stamp: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[demo,serve]'
	touch $@

.venv/dev.stamp: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@ .venv/demo.stamp

.venv/docs.stamp: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	touch $@

clean:
	rm -rf .venv .cache site .mypy_cache .ruff_cache .coverage .coverage.* scaleseg-demo
