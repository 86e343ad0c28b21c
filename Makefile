# `make help` lists the verbs. Everything is installed into .venv; nothing needs a compiler.

PYTHON ?= python3
NAMEKO_PYTHON ?= $(shell command -v python3.11 || command -v python3.10 || command -v $(PYTHON))
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
WITH_BROKER := $(BIN)/python -m tests.support.with_broker
PYTEST := $(WITH_BROKER) $(BIN)/python -m pytest
NAMEKOS := .venv-nameko2/.done .venv-nameko3/.done
WITH_NAMEKOS := NAMEKO2_PYTHON=$(CURDIR)/.venv-nameko2/bin/python \
	NAMEKO3_PYTHON=$(CURDIR)/.venv-nameko3/bin/python
# The other Pythons at hand; how a process ends differs between them.
WITH_PYTHONS := THREADKO_PYTHONS=$$(ls -d $(CURDIR)/.venv-pythons/*/bin/python 2>/dev/null | paste -sd : -)
COVERAGE := --cov --cov-report=term --cov-fail-under=95
METADATA := setup.py pyproject.toml requirements/base.txt threadko/__init__.py

.PHONY: help demo test interop test-all lint types docs bench clean
.DELETE_ON_ERROR:

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.base ## run services, call them, stop them
	@$(WITH_BROKER) $(BIN)/python examples/demo.py

test: $(VENV)/.test ## run the tests, in less than five minutes
	@$(PYTEST) $(COVERAGE) -m "not interop and not bench and not long"

interop: $(VENV)/.test $(NAMEKOS) ## run the tests with real namekos, 2.14 and 3
	@$(WITH_NAMEKOS) $(PYTEST) -m interop

test-all: $(VENV)/.test $(NAMEKOS) .venv-pythons/.done ## run all tests, the long ones and those with real namekos too
	@$(WITH_NAMEKOS) $(WITH_PYTHONS) $(PYTEST) $(COVERAGE) -m "not bench"

lint: $(VENV)/.dev ## check form and style
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .

types: $(VENV)/.dev ## check the types of the package
	@$(BIN)/mypy

docs: $(VENV)/.docs ## check that the pages can be read as reStructuredText
	@for page in README.rst CHANGES.rst docs/*.rst; do \
		$(BIN)/python -m docutils --strict "$$page" /dev/null || exit 1; \
	done

bench: $(VENV)/.test .venv-nameko3/.done ## measure threadko, nameko and bare pika side by side
	@NAMEKO3_PYTHON=$(CURDIR)/.venv-nameko3/bin/python $(WITH_BROKER) $(BIN)/python -m tests.benchmarks

clean: ## remove what the other verbs made
	rm -rf .venv .venv-nameko2 .venv-nameko3 .venv-pythons build dist *.egg-info .coverage .coverage.* htmlcov
	rm -rf .mypy_cache .pytest_cache .ruff_cache
	find threadko tests examples -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo "Python 3.10 or newer is needed: make PYTHON=python3.11 ..., or install one" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
		echo "$(PYTHON) cannot make an environment: apt-get install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.base: $(BIN)/python $(METADATA)
	@echo "installing threadko into $(VENV)"
	@$(PIP) install --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.base requirements/test.txt
	@echo "installing what the tests need"
	@$(PIP) install --requirement requirements/test.txt
	@touch $@

$(VENV)/.dev: $(VENV)/.test requirements/dev.txt
	@echo "installing the tools"
	@$(PIP) install --requirement requirements/dev.txt
	@touch $@

$(VENV)/.docs: $(VENV)/.base requirements/docs.txt
	@$(PIP) install --requirement requirements/docs.txt
	@touch $@

.venv-nameko2/.done .venv-nameko3/.done: .venv-nameko%/.done: requirements/nameko%.txt
	@echo "installing a real nameko into $(@D)"
	@$(NAMEKO_PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip --quiet --disable-pip-version-check install --requirement $<
	@touch $@

.venv-pythons/.done: requirements/base.txt
	@rm -rf .venv-pythons && mkdir -p .venv-pythons
	@for version in 3.10 3.11 3.12 3.13; do \
		for python in "$$(command -v python$$version)" "$${PYENV_ROOT:-$$HOME/.pyenv}/versions/$$version".*/bin/python; do \
			if "$$python" -c 'import ensurepip' 2>/dev/null; then \
				echo "installing threadko's requirements for Python $$version"; \
				"$$python" -m venv ".venv-pythons/$$version" && \
				".venv-pythons/$$version/bin/python" -m pip --quiet --disable-pip-version-check \
					install --requirement requirements/base.txt || exit 1; \
				break; \
			fi; \
		done; \
	done
	@touch $@
