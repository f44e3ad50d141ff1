# Two commands do all set-up: `make demo` and `make test`. Both work a second time.
# `make bench` times, `make check` is what CI runs before the slow tests.

SHELL := /bin/sh
BIN := .venv/bin
PLUGINS := $(sort $(wildcard plugins/*))
EDITABLE := $(foreach plugin,$(PLUGINS),-e $(plugin))
DESCRIBED := pyproject.toml constraints.txt Makefile $(wildcard plugins/*/pyproject.toml)
HOST := -e ".[onnx,quant]"
BENCH_JSON := .benchmarks/kdbench-bench.json
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test slow bench results reference-check check lint docs help clean

help:
	@echo "make demo   install into .venv, run the embedded suite, show the tables"
	@echo "make test   install what the tests need, run them (a few minutes)"
	@echo "make check  test, then ruff, mypy and the slow tests (what CI runs)"
	@echo "make bench  the speed bars, measured on this machine"
	@echo "make reference-check  train some published runs again, and compare"
	@echo "make results  reports and index page of the published records"
	@echo "make docs   docs/strategies.md, from the docstrings"
	@echo "make clean  remove .venv and caches (results stay)"

demo: .venv/installed
	$(BIN)/kdbench run digits

test: .venv/installed-dev
	$(BIN)/python -m pytest -m "not slow" -n auto --dist loadfile

# Of these every core can take the next, the longest first: they share nothing but what
# the tests of an `xdist_group` do.
APART := tests/test_unstoppable.py tests/test_cifar_pairs.py tests/test_museum.py \
	tests/conformance tests/stats tests/scaffold tests/exporting tests/test_hook_docs.py \
	tests/test_tutorial.py tests/test_frozen.py tests/data plugins/kdbench-sklearn/tests \
	tests/test_reproduce_cli.py tests/engine/test_tasks.py tests/test_compressing.py \
	tests/engine/test_guards.py tests/test_every_strategy.py tests/test_strategies.py

slow: .venv/installed-dev
	$(BIN)/python -m pytest -m slow $(addprefix --ignore ,$(APART))
	$(BIN)/python -m pytest -m slow -n auto --dist loadgroup $(APART)

# All rows, or those that ROWS names: make bench ROWS="whole_table or without_nst".
# pytest's own options of pyproject.toml would skip what this is for.
bench: .venv/installed-dev
	@mkdir -p $(dir $(BENCH_JSON))
	$(BIN)/python -m pytest -o addopts="--import-mode=importlib --strict-markers" \
		-o timeout=3600 tests/bench --benchmark-only --benchmark-disable-gc \
		--benchmark-quiet --benchmark-json=$(BENCH_JSON) -s $(if $(ROWS),-k "$(ROWS)")

# Five published runs at random, trained again: make reference-check CELLS=3 BUDGET=20
# (minutes) DRAW=42 DATA=DIR (or KDBENCH_DATA). What needs data that are not there is
# left out, and said.
reference-check: .venv/installed
	@$(BIN)/kdbench reproduce results/reference $(if $(DATA),--data-dir "$(DATA)") \
		$(if $(CELLS),--cells $(CELLS)) $(if $(BUDGET),--budget $(BUDGET)) \
		$(if $(DRAW),--draw $(DRAW))

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: test lint slow

docs: .venv/installed-dev
	$(BIN)/python -m kdbench.catalogue > docs/strategies.md

# What git keeps is small: tables and plots of each suite as Markdown and PNG, of all of
# a machine class together the page, CSV files and the plots over all settings.
results: .venv/installed
	@set -e; for kind in results/reference/*/; do \
		for suite in $$kind*/; do \
			case $$suite in */report/) continue;; esac; set -- "$$@" $$suite; \
			rm -rf "$${suite}report"; \
			$(BIN)/kdbench report $$suite -f markdown -f plots > /dev/null; \
			echo "$$suite"report; \
		done; \
		rm -rf "$${kind}report"; \
		$(BIN)/kdbench report "$$@" --to $${kind}report -f html -f csv -f plots > /dev/null; \
		echo $${kind}report; set --; \
	done
	$(BIN)/python -m kdbench.reference results

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .benchmarks

.venv/bin/python:
	@found=; for python in "$(PYTHON)" python3 python3.14 python3.13 python3.12 python3.11 python; do \
		if [ -n "$$python" ] && "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
		then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "make: kdbench needs Python 3.11 or newer, and none was found."; \
		echo "  Install one, or name it: make PYTHON=/path/to/python3.12 demo"; exit 1; \
	fi; \
	echo "creating .venv with $$("$$found" --version)"; \
	"$$found" -m venv .venv || { rm -rf .venv; \
		echo "make: $$found could not create a virtual environment (see above);"; \
		echo "  on Debian and Ubuntu the package python3-venv brings what it needs"; exit 1; }

.venv/installed: $(DESCRIBED) | .venv/bin/python
	@$(call install,$(HOST))

.venv/installed-dev: $(DESCRIBED) | .venv/bin/python
	@$(call install,-e ".[dev]")
	@touch .venv/installed

# $(1): how to install kdbench itself. The build tool goes first, so that none of the
# editable installs need fetch its own.
define install
echo "installing into .venv (a few minutes the first time, most of it PyTorch)"; \
{ $(PIP) install --quiet -c constraints.txt hatchling editables && \
  $(PIP) install --quiet -c constraints.txt --no-build-isolation $(1) $(EDITABLE); } || { \
	echo "make: the installation failed, see above. It needs a package registry (PyPI,"; \
	echo "  or a mirror named in PIP_INDEX_URL) that has what constraints.txt names."; exit 1; }
touch $@
endef
