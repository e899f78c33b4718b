# dolmen: `make demo` runs the whole loop, `make test` the whole test suite. Everything lands in .venv and build/.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
NATIVE := $(wildcard src/dolmen/_core/*.cpp src/dolmen/_core/*.hpp) CMakeLists.txt src/dolmen/_core/CMakeLists.txt
# Its loops are timed, so nothing runs beside them. The other files run in the order of their folders: the few that are
# long come early, and no worker is left alone with one at the end.
TIMED  := tests/demo/test_demo_end_to_end.py
PIP    := PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help demo test test-studies test-native check lint format types imports docs native-check benchmark screenshot clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

demo: $(VENV)/.user ## Install, then run the whole loop on real events and open its page
	@$(BIN)/dolmen demo $(ARGS)

test: $(VENV)/.developer ## Install, then run the whole test suite
	@tools/install-browser
ifdef ARGS
	$(BIN)/python -m pytest $(ARGS)
else
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --ignore $(TIMED)
	$(BIN)/python -m pytest $(TIMED)
endif

test-studies: $(VENV)/.developer ## Run the quick form of every study (ARGS: names of some)
	$(BIN)/dolmen reproduce --quick $(ARGS)

check: lint types imports docs test native-check ## Everything the gate asks: style, types, import rules, docs, tests

lint: $(VENV)/.developer ## Look for style problems in Python and C++
	$(BIN)/ruff check src tests benchmarks tools
	$(BIN)/ruff format --check src tests benchmarks tools
	$(BIN)/clang-format --dry-run --Werror $(filter %.cpp %.hpp,$(NATIVE))

format: $(VENV)/.developer ## Lay out all code anew
	$(BIN)/ruff check --fix-only src tests benchmarks tools
	$(BIN)/ruff format src tests benchmarks tools
	$(BIN)/clang-format -i $(filter %.cpp %.hpp,$(NATIVE))

types: $(VENV)/.developer ## Check types, strictly
	$(BIN)/mypy

imports: $(VENV)/.developer ## Check that imports only point down
	$(BIN)/lint-imports --no-cache

docs: $(VENV)/.developer ## Check that every link in the documents leads somewhere
	$(BIN)/python tools/check_docs.py

native-check: $(VENV)/.developer ## Test the C++ core under address, undefined-behaviour and thread sanitizers
	tests/native/run.sh address,undefined
	tests/native/run.sh thread

test-native: $(VENV)/.developer ## The same for longer: a stress run of readers and writers, with AVX2 and without
	tests/native/run.sh address,undefined 60
	tests/native/run.sh address,undefined 60 portable
	tests/native/run.sh thread 120

benchmark: $(VENV)/.developer ## Measure the table against the physical bound, and write docs/results/table.json and .svg
	$(BIN)/python benchmarks/table/run.py --out docs/results

screenshot: $(VENV)/.developer ## Make the pictures in the README anew
	$(BIN)/python tools/screenshot.py

clean: ## Remove what was built; data and state stay
	rm -rf build $(VENV)

$(BIN)/python:
	@echo "dolmen: making $(VENV) (seconds)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dolmen needs Python 3.11 or newer, this is " + sys.version)'
	@$(PYTHON) -m venv $(VENV)

# pip is quiet, and compiles the core on the way: say what is going on, or minutes pass without a word.
INSTALLING := "dolmen: installing packages and compiling the core (the first time some minutes: torch is large, and so is the core; later about one)"

$(VENV)/.user: $(BIN)/python pyproject.toml constraints.txt $(NATIVE)
	@echo $(INSTALLING)
	@$(PIP) install --quiet --editable .
	@echo "dolmen: installed"
	@touch $@

$(VENV)/.developer: $(BIN)/python pyproject.toml constraints.txt $(NATIVE)
	@echo $(INSTALLING)
	@$(PIP) install --quiet --editable '.[dev]'
	@echo "dolmen: installed"
	@touch $@ $(VENV)/.user
