# `make help` lists the verbs. Everything is installed into .venv; only `test-all` and
# `bench` need a compiler, for a driver.

PYTHON ?= python3
NAMEKO_PYTHON ?= $(shell command -v python3.11 || command -v python3.10 || command -v $(PYTHON))
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
# The development broker, whatever AMQP_URI names; that is for the tests that want a RabbitMQ.
ON_OWN_BROKER := env -u AMQP_URI
WITH_BROKER := $(ON_OWN_BROKER) $(BIN)/python -m tests.support.with_broker
WITH_RABBITMQ := $(BIN)/python -m tests.support.with_broker --rabbitmq
PYTEST := $(WITH_BROKER) $(BIN)/python -m pytest
PYTEST_ON_RABBITMQ := $(WITH_RABBITMQ) $(BIN)/python -m pytest
NAMEKOS := .venv-nameko2/.done .venv-nameko3/.done
WITH_NAMEKOS := NAMEKO2_PYTHON=$(CURDIR)/.venv-nameko2/bin/python \
	NAMEKO3_PYTHON=$(CURDIR)/.venv-nameko3/bin/python
# The other Pythons at hand; how a process ends differs between them.
WITH_PYTHONS := THREADKO_PYTHONS=$$(ls -d $(CURDIR)/.venv-pythons/*/bin/python 2>/dev/null | paste -sd : -)
# Three at once on two processors: most tests wait for something most of the time.
# A file's tests stay together: they share names on the broker.
PARALLEL := --numprocesses 3 --dist loadfile
QUICK := not interop and not bench and not long and not rabbitmq and not drivers
TESTS ?= tests
CALLS ?= 1000000
VERSIONS := 3.10 3.11 3.12 3.13 3.14
COVERAGE := --cov --cov-report=term --cov-fail-under=95
METADATA := setup.py pyproject.toml requirements/base.txt threadko/__init__.py

.PHONY: help demo test interop test-all faults soak lint types docs pythons oldest package bench clean
.DELETE_ON_ERROR:

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.base ## run services on the development broker, call them, stop them
	@$(BIN)/python examples/demo.py

test: $(VENV)/.test ## run the tests on the development broker, in less than five minutes
	@$(PYTEST) $(PARALLEL) -m "$(QUICK)"

interop: $(VENV)/.test $(NAMEKOS) ## run the tests with real namekos, 2.14 and 3
	@$(WITH_NAMEKOS) $(PYTEST_ON_RABBITMQ) -m interop

test-all: test $(VENV)/.drivers $(NAMEKOS) .venv-pythons/.done ## run all tests on RabbitMQ too, the long ones and those with real namekos
	@$(WITH_NAMEKOS) $(WITH_PYTHONS) $(PYTEST_ON_RABBITMQ) $(PARALLEL) $(COVERAGE) -m "not bench"

faults: $(VENV)/.drivers .venv-pythons/.done ## run the fault suite, print its table row by row, write its figures to docs/figures.csv
	@$(WITH_PYTHONS) $(WITH_RABBITMQ) $(BIN)/python -m tests.faults $(PARALLEL) --figures docs/figures.csv

soak: $(VENV)/.test ## call a million times while connections are cut and services restart, write what was seen to docs/soak.csv (CALLS=...)
	@$(WITH_RABBITMQ) $(BIN)/python -m tests.faults.soak --calls $(CALLS) --figures docs/soak.csv

lint: $(VENV)/.dev ## check form and style
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .

types: $(VENV)/.dev ## check the types of the package, and of the public API as users write it
	@$(BIN)/mypy
	@$(BIN)/mypy tests/typing_api.py

docs: $(VENV)/.docs ## build the pages into docs/_build/html, run their doctests, count what they document, check spelling
	@for page in README.rst CHANGES.rst CONTRIBUTING.rst SECURITY.rst; do \
		$(BIN)/python -m docutils --strict "$$page" /dev/null || exit 1; \
	done
	@$(BIN)/codespell
	@$(BIN)/sphinx-build --fail-on-warning --keep-going --fresh-env -q -d docs/_build/doctrees -b html docs docs/_build/html
	@$(BIN)/sphinx-build --fail-on-warning --keep-going -q -d docs/_build/doctrees -b doctest docs docs/_build/doctest

pythons: .venv-pythons/.done ## run the tests on each Python at hand, and say which those were (TESTS=tests/rpc for a part)
	@for version in $(VERSIONS); do \
		python=.venv-pythons/$$version/bin/python; \
		if [ ! -x "$$python" ]; then missing="$$missing $$version"; continue; fi; \
		echo "== Python $$version"; \
		$$python -m pip --quiet --disable-pip-version-check install --editable . --requirement requirements/test.txt && \
		$(ON_OWN_BROKER) $$python -m tests.support.with_broker $$python -m pytest $(PARALLEL) -m "$(QUICK)" $(TESTS) || exit 1; \
		ran="$$ran $$version"; \
	done; \
	echo "== ran on Python$$ran; not at hand:$${missing:- none}"

oldest: .venv-oldest/.done ## run the tests with the oldest releases that requirements/base.txt allows
	@cat .venv-oldest/constraints.txt
	@$(ON_OWN_BROKER) .venv-oldest/bin/python -m tests.support.with_broker .venv-oldest/bin/python -m pytest $(PARALLEL) -m "$(QUICK)" $(TESTS)

package: $(VENV)/.test ## build the distributions into dist/; a test installs and tries such
	@$(BIN)/python -m build --outdir dist .

bench: $(VENV)/.drivers .venv-nameko3/.drivers ## measure threadko, nameko and bare pika side by side, write what was found to docs/bench.txt
	@NAMEKO3_PYTHON=$(CURDIR)/.venv-nameko3/bin/python $(WITH_RABBITMQ) $(BIN)/python -m tests.benchmarks --report docs/bench.txt

clean: ## remove what the other verbs made
	rm -rf .venv .venv-nameko2 .venv-nameko3 .venv-oldest .venv-pythons build dist *.egg-info .coverage .coverage.* htmlcov
	rm -rf .mypy_cache .pytest_cache .ruff_cache docs/_build docs/api
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

$(VENV)/.drivers: $(VENV)/.test requirements/drivers.txt
	@echo "installing drivers in C"
	@$(PIP) install --requirement requirements/drivers.txt || { \
		echo "mysqlclient is compiled: apt-get install libmariadb-dev pkg-config gcc python3-dev" >&2; exit 1; }
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

# Only to measure it: whoever tests with a real nameko needs no compiler.
.venv-nameko3/.drivers: .venv-nameko3/.done
	@$(@D)/bin/python -m pip --quiet --disable-pip-version-check install mysqlclient
	@touch $@

# Of each requirement the least that is allowed, as constraints; on the oldest Python at hand.
.venv-oldest/.done: requirements/base.txt requirements/test.txt .venv-pythons/.done
	@echo "installing the oldest releases that are allowed"
	@"$$(ls -d .venv-pythons/*/bin/python | sort -V | head -n 1)" -m venv .venv-oldest
	@sed -n 's/^\([A-Za-z].*\)>=\([^,]*\).*/\1==\2/p' requirements/base.txt >.venv-oldest/constraints.txt
	@.venv-oldest/bin/python -m pip --quiet --disable-pip-version-check install \
		--constraint .venv-oldest/constraints.txt --editable . --requirement requirements/test.txt
	@touch $@

.venv-pythons/.done: requirements/base.txt
	@rm -rf .venv-pythons && mkdir -p .venv-pythons
	@for version in $(VERSIONS); do \
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
