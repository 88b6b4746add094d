# `make run` serves the router on this machine, `make demo` shows it in a minute, `make test` runs every check.
# All set themselves up first; PYTHON= names the interpreter to do that with.
PORT ?= 7071
ROUTES ?=
IN_VENV := .venv/bin/python

.PHONY: run demo test fmt setup

run: setup
	@exec $(IN_VENV) -m local.run --port $(PORT) $(if $(ROUTES),--routes $(ROUTES))

demo: setup
	@exec $(IN_VENV) -m local.demo

test: setup
	$(IN_VENV) -m ruff format --check .
	$(IN_VENV) -m ruff check .
	$(IN_VENV) -m mypy
	$(IN_VENV) -m pytest -n auto --dist worksteal --cov --cov-report=term

fmt: setup
	$(IN_VENV) -m ruff format .
	$(IN_VENV) -m ruff check --fix .

setup:
	@python3 tools/setup_environment.py
