# moola's commands: `make help` lists them. Each makes `.venv` first, when it is missing or when the requirements have changed.

PYTHON  ?= python3
TORCH   ?= torch==2.13.0
VARIANT ?= position_encoding
ARGS    ?=
# SYSTEM_TORCH=1 keeps the torch that is installed already, as GPU images have it: .venv then sees the machine's packages.
SYSTEM_TORCH ?=

VENV  := .venv
BIN   := $(VENV)/bin
READY := $(VENV)/.moola-ready
PIP   := $(BIN)/python -m pip --disable-pip-version-check -qq install

.DEFAULT_GOAL := help
.PHONY: help venv train test site readme pages bench figures clean

help:  ## Show these lines
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s%s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "  Options: VARIANT=$(VARIANT)  ARGS='--epochs 20 --data windows.parquet'  PYTHON=$(PYTHON)  TORCH='$(TORCH)'  SYSTEM_TORCH=1"

venv: $(READY)  ## Make .venv, with moola and all that it is developed with

train: $(READY)  ## Train VARIANT into a new folder under artifacts/, through papermill
	@$(BIN)/moola_train --variant $(VARIANT) $(ARGS)
	@$(BIN)/python .ci/reached.py $(VARIANT)

# index.ipynb becomes the README, whose every block a test runs in an empty folder.
# Both at once: five processes, some of which always wait, keep two cores busy to the end. What pytest prints comes last, and either one's failure counts.
test: $(READY)  ## Run every notebook's tests beside pytest, which also checks the notebooks, the site and the wheel
	@echo "Testing the notebooks and, beside them, the project, whose report comes last"
	@export OMP_NUM_THREADS=1 PATH="$(CURDIR)/$(BIN):$$PATH"; log=$$(mktemp); trap 'rm -f "$$log"' EXIT; \
	python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder --durations=12 tests $(ARGS) >"$$log" 2>&1 & project=$$!; trap 'kill $$project; exit 130' INT TERM; \
	nbdev_test --timing --n_workers 2 --skip_file_re '^([_.]|index)'; notebooks=$$?; wait $$project; failed=$$?; cat "$$log"; \
	[ $$notebooks -eq 0 ] || { echo "The notebooks' tests failed: see above." >&2; exit $$notebooks; }; exit $$failed

site: $(READY)  ## Build the site into _proc/_docs
	@$(BIN)/python .ci/site.py

readme: $(READY)  ## Write README.md from nbs/index.ipynb
	@$(BIN)/python .ci/readme.py

pages: $(READY)  ## Run every page, store what it shows, and write README.md: about half an hour
	@OMP_NUM_THREADS=1 PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python .ci/pages.py --workers 2 $(ARGS)
	@$(if $(ARGS),true,$(BIN)/python .ci/commands.py)

bench: $(READY)  ## Time the feature pass, training, a scan, a stream and the explorer
	@for script in features training cpu_step many scan stream explore; do $(BIN)/python benchmarks/$$script.py || exit 1; done

figures: $(READY)  ## Make every stored number anew: all benchmarks, then all pages; hours with a GPU
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python benchmarks/figures.py $(ARGS)
	@$(MAKE) --no-print-directory pages ARGS=

clean:  ## Remove what was built, .venv too; artifacts stay
	rm -rf $(VENV) _proc _docs build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One recipe for both commands, so that each works on a machine with nothing but Python and pip.
$(READY): settings.ini setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "moola needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) --version 2>/dev/null || echo missing): name another with PYTHON=python3.12." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "'$(PYTHON)' cannot make virtual environments: install its venv module (Debian and Ubuntu: apt-get install python3-venv)." >&2; exit 1; }
	@test -x $(BIN)/python || \
	  { echo "Making $(VENV) with $$($(PYTHON) --version)"; $(PYTHON) -m venv $(if $(SYSTEM_TORCH),--system-site-packages) $(VENV); }
	@$(BIN)/python -c 'from importlib.metadata import version; print("Keeping torch", version("torch"))' 2>/dev/null || \
	  { echo "Installing $(TORCH)"; $(PIP) $(TORCH); }
	@echo "Installing moola and its requirements, which takes two or three minutes"
	@$(PIP) -e '.[dev]'
	@touch $@
