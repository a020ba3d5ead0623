PYTHON ?= python3
BIN := .venv/bin

.PHONY: help study tables docs test chaos check bench-cells bench-densities bench-engine bench-forecast bench-intervals bench-joint bench-loss bench-pretraining bench-reading bench-simulation bench-store bench-training clean
.DEFAULT_GOAL := help

help:  ## What can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

study: .venv/study  ## Run the bin sweep on the simulated screen, from set-up to figure
	$(BIN)/python studies/bin_sweep.py

tables: results-tables/screen.h5ad  ## All tables and figures of the histogram paper, on a simulated screen
	for study in methods loss_weights open_choices bin_sweep; do \
		more=$$(test $$study != methods || echo --save-predictions --gene-sets $(<:.h5ad=.good.gmt)); \
		$(BIN)/python studies/$$study.py --screen $< --embeddings $(<:.h5ad=.good.npz) --folds 5 --epochs 300 \
			--out $(<D) $$more || exit; \
	done
	$(BIN)/python -m analysis.perturbation $(<D)/methods
	$(BIN)/python -m analysis.zero_bin $(<D)/methods

results-tables/screen.h5ad: .venv/study
	mkdir -p $(@D)
	$(BIN)/histpert simulate $@ --like easy --n-perturbations 150 --n-genes 300 --n-cells 16500 --n-control 1500

docs: .venv/docs  ## Build the documentation site into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo 'site/index.html; with search: $(BIN)/python -m http.server --directory site'

test: .venv/dev  ## Run the tests
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

chaos: .venv/dev  ## Run the tests that take long, as they kill many processes or run studies over and over
	$(BIN)/python -m pytest -m chaos

check: .venv/dev  ## Format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

bench-cells: .venv/study  ## Time and memory of CellTARNet against genes, and of sampling with and without kept keys and values
	$(BIN)/python tests/benchmarks/cells.py

bench-densities: .venv/study  ## Time and memory of TG and ZITG, beside a likelihood that goes over all cells
	$(BIN)/python tests/benchmarks/densities.py

bench-engine: .venv/study  ## Time of a study of many short trials, and of two workers beside one
	$(BIN)/python tests/benchmarks/engine.py

bench-forecast: .venv/study  ## What `histpert doctor` forecasts beside what three studies take: time, memory and disk
	$(BIN)/python tests/benchmarks/forecast.py

bench-intervals: .venv/study  ## How often intervals of final models hold what they say, on perturbations never seen
	$(BIN)/python tests/benchmarks/intervals.py

bench-joint: .venv/study  ## Whole cells against the known joint distribution of a simulated screen, and CellTARNet's contrast
	$(BIN)/python tests/benchmarks/joint.py

bench-loss: .venv/study  ## Time of the loss and its gradient, beside plain torch
	$(BIN)/python tests/benchmarks/loss.py

bench-pretraining: .venv/study  ## Tokens per second of PerturBERT's training, beside its floor and plain encoders
	$(BIN)/python tests/benchmarks/pretraining.py

bench-reading: .venv/dev  ## Time and memory of reading a screen, beside anndata and scanpy
	$(BIN)/python tests/benchmarks/reading.py

bench-simulation: .venv/study  ## Time and memory of writing a screen of the published size
	$(BIN)/python tests/benchmarks/simulation.py

bench-store: .venv/dev  ## Time, size and memory of the histogram store, beside what one would do without it
	$(BIN)/python tests/benchmarks/store.py

bench-training: .venv/study  ## Time, memory and scores of a training step at the published shape, beside a plain loop
	$(BIN)/python tests/benchmarks/training.py

clean:  ## Remove the virtual environment (results stay)
	rm -rf .venv

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "histpert needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv

.venv/study: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	@touch $@

.venv/docs: .venv/study
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[docs]'
	@touch $@

.venv/dev: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@ .venv/study .venv/docs
