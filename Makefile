# Every target sets up what it needs first, so a fresh machine needs python3, make and a package index.
#   make PYTHON=/path/to/python3.13 VENV=.venv-3.13 test    another Python, side by side
#   make test ARGS='-k rounding'                            arguments for the command behind the target
#   make test ARGS='-n auto --dist loadfile'                on all CPUs

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

SET_UP = $(PYTHON) tools/set_up.py --venv $(VENV)
VENV_PYTHON = $(VENV)/bin/python

.PHONY: run test test-pythons test-wheel lint bench docs dist clean

run:
	$(SET_UP) cli
	$(VENV_PYTHON) -m asm_libcalls $(ARGS)

test:
	$(SET_UP) test
	$(VENV_PYTHON) -m pytest $(ARGS)

# The tests that depend on Python, on every other one that is found, each in .venv-3.X.
test-pythons:
	$(PYTHON) tools/other_pythons.py $(ARGS)

# The wheel in a new environment, without PeachPy and without this checkout.
test-wheel: dist
	$(VENV_PYTHON) tools/check_wheel.py

# `cli` and `test` too: mypy reads the types of what the command line and tools import.
lint:
	$(SET_UP) cli lint test
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .
	$(VENV_PYTHON) -m mypy --strict

bench:
	$(SET_UP) cli bench
	$(VENV_PYTHON) -m asm_libcalls bench $(ARGS)

# Warnings are errors: a page that names a missing object does not build.
docs:
	$(SET_UP) cli docs
	$(VENV_PYTHON) -m sphinx -W --keep-going -b html $(ARGS) docs docs/_build/html

# With images of the machine code inside: the installed wheel needs no PeachPy.
dist:
	$(SET_UP) dist
	$(VENV_PYTHON) tools/build_distributions.py

# Only environments are removed as such: `make VENV=. clean` must not cost the checkout.
clean:
	for venv in $(VENV) .venv-3.*; do test ! -e $$venv/pyvenv.cfg || rm -rf $$venv; done
	rm -rf build dist docs/_build *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find asm_libcalls tests tools -name __pycache__ -prune -exec rm -rf {} +
