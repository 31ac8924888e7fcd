# What a developer types. Everything is installed into .venv; nothing else on the machine changes.
#   make demo    annotate example_data with the shipped model and draw the scores (no torch)
#   make test    the tests;  make lint    ruff and mypy;  make check    both
#   make slow, make parity, make hosts    the tests that `make test` leaves out;  make bench    speed
#   make docs    docs/models.md from the families and docs/parity.tsv

PYTHON ?= python3
VENV ?= .venv
# pytest-xdist workers
WORKERS ?= 2
# further arguments for pytest, such as PYTEST_ARGS="-k vcf -x"
PYTEST_ARGS ?=
DEMO_DIR ?= build/demo

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
PYTEST := $(BIN)/python -m pytest $(PYTEST_ARGS)
# pytest ends with 5 when no test carries the marker, which is no failure here.
NO_TESTS_IS_FINE = || { code=$$?; [ $$code -eq 5 ] && echo "no test is marked '$@' yet"; }

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test slow parity hosts docs lint format bench check clean

help:
	@sed -n '2,5s/^# *//p' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.demo-installed
	$(BIN)/python example_data/demo.py --out $(DEMO_DIR)

test: $(VENV)/.dev-installed
	$(PYTEST) -n $(WORKERS) -m "not slow and not parity and not hosts"

slow: $(VENV)/.dev-installed
	$(PYTEST) -n $(WORKERS) -m slow $(NO_TESTS_IS_FINE)

parity: $(VENV)/.parity-installed
	$(PYTEST) -n $(WORKERS) -m parity

hosts: $(VENV)/.dev-installed
	$(PYTEST) -n $(WORKERS) -m "hosts and not slow" $(NO_TESTS_IS_FINE)

# Copy build/parity.tsv to docs/parity.tsv first where the figures are to be new.
docs: $(VENV)/.dev-installed
	$(BIN)/python docs/make_models.py

lint: $(VENV)/.dev-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev-installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev-installed
	$(BIN)/python benchmarks/run.py

check: lint test

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage htmlcov
	find glm_annotate tests benchmarks example_data -name __pycache__ -type d -prune \
	    -exec rm -rf {} + 2>/dev/null || true

# The package is installed as a link to this folder, so only a change of the dependencies installs
# anything again.
$(VENV)/.demo-installed: $(VENV)/.created pyproject.toml constraints.txt
	$(PIP) --editable ".[plots]"
	@touch $@

$(VENV)/.dev-installed: $(VENV)/.created pyproject.toml constraints.txt
	$(PIP) --editable ".[train,dev,all]"
	@touch $@ $(VENV)/.demo-installed

# Public implementations of the systems; some ask for packages (flash-attn, CUDA) that the parts
# compared here do not use, so they come without what they ask for.
$(VENV)/.parity-installed: $(VENV)/.dev-installed tests/parity-requirements.txt \
		tests/parity-requirements-alone.txt
	$(PIP) -r tests/parity-requirements.txt
	$(PIP) --no-deps -r tests/parity-requirements-alone.txt
	@touch $@

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "glm_annotate needs Python 3.11 or 3.12; name one with make PYTHON=/path/to/python3.11" >&2; \
	    exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
	    rm -rf $(VENV); \
	    echo "$(PYTHON) cannot make virtual environments (Debian: apt-get install python3-venv)" >&2; \
	    exit 1; }
	@touch $@
