# `make run` serves the router on this machine, `make demo` shows it in a minute, `make test` runs every check.
# All set themselves up first.
PORT ?= 7071
ROUTES ?=
PYTHON := .venv/bin/python

.PHONY: run demo test fmt setup

run: setup
	@exec $(PYTHON) -m local.run --port $(PORT) $(if $(ROUTES),--routes $(ROUTES))

demo: setup
	@exec $(PYTHON) -m local.demo

test: setup
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy
	$(PYTHON) -m pytest -n auto --cov --cov-report=term

fmt: setup
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

setup:
	@python3 tools/setup_environment.py
