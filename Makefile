.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TRUST := examples/benchmarks/results/trust.json

.PHONY: help
help:  ## Say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | awk -F'\t' '{printf "  make %-17s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@

.PHONY: setup
setup: $(STAMP)  ## Make .venv with the tested versions of everything

.PHONY: demo
demo: $(STAMP)  ## Select from real images with wrong labels and train on the result (no network, about a minute)
	$(BIN)/sage-hf demo

.PHONY: test
test: $(STAMP)  ## Run all tests, in two processes of one thread
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: style
style: $(STAMP)  ## Format, and mend what can be mended
	$(BIN)/ruff format sage_hf tests examples
	$(BIN)/ruff check --fix sage_hf tests examples

.PHONY: quality
quality: $(STAMP)  ## Check format, lint and types
	$(BIN)/ruff format --check sage_hf tests examples
	$(BIN)/ruff check sage_hf tests examples
	$(BIN)/mypy

.PHONY: docs
docs: $(STAMP)  ## Build the documentation into site/, strict about broken links (no network)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "Open site/index.html"

.PHONY: release-check
release-check: $(STAMP)  ## Build, check what PyPI would show, install the wheel in a clean environment, run the demo there
	rm -rf dist build/release
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[release]"
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	$(PYTHON) -m venv build/release
	build/release/bin/pip install --quiet --constraint constraints.txt "$$(echo dist/*.whl)[demo]"
	cd build/release && bin/sage-hf --version && bin/sage-hf demo --output demo
	@echo "The files in dist/ can be uploaded."

.PHONY: benchmark
benchmark: $(STAMP)  ## Measure speed, memory, training, scale, load, costs and checks, and write examples/benchmarks/results
	$(BIN)/python examples/benchmarks/speed.py
	$(BIN)/python examples/benchmarks/memory.py
	$(BIN)/python examples/benchmarks/trainer.py
	$(BIN)/python examples/benchmarks/scale.py
	$(BIN)/python examples/benchmarks/cost.py
	$(BIN)/python examples/benchmarks/check.py
	$(BIN)/python examples/benchmarks/small.py
	$(BIN)/python examples/benchmarks/choose.py
	$(BIN)/python examples/benchmarks/load.py

.PHONY: benchmark-quality
benchmark-quality: $(STAMP)  ## Measure what subsets are worth and how wrong labels are found: hours; goes on where it stopped
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev,bench]"
	$(BIN)/python examples/benchmarks/quality.py
	$(BIN)/python examples/benchmarks/label_issues.py
	$(BIN)/python examples/benchmarks/width.py
	$(BIN)/python examples/benchmarks/targets.py
	$(BIN)/python examples/benchmarks/readme.py

.PHONY: models
models: $(STAMP)  ## Hold 300 model classes to batch-of-1, and write the table in examples/benchmarks/results (20 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python examples/benchmarks/models.py

.PHONY: trust
trust: $(STAMP)  ## Try to break it, at length: chance, faults, odd numbers, hostile input; writes examples/benchmarks/results/trust.json
	rm -f $(TRUST)
	ls tests/trust/test_*.py | OMP_NUM_THREADS=1 SAGE_TRUST_REPORT=$(TRUST) xargs -P 2 -n 1 $(BIN)/python -m pytest -q

.PHONY: clean
clean:  ## Remove what setup and builds made
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
