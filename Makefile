# python3, make and the package registries are all this needs.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
SYSTEM := tests --ignore tests/unit
RUN    := not browser and not vllm

.PHONY: install run test test-unit test-system coverage lint test-browser test-vllm bench bench-faults clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml $(wildcard loadgen/injector/http/*.[ch] harness/engine/virtual/*.c)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@

run: install
	$(BIN)/tailgate run workloads/data/azure-2023-conv.yaml

test: test-unit test-system

# No process, no port (tests/unit/conftest.py): what to run while you write.
test-unit: install
	$(BIN)/python -m pytest -n 2 --dist worksteal $(COVERAGE) tests/unit

# Two at a time, in the order of their files; those that measure run alone.
test-system: install
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 20 -m '$(RUN) and not alone' $(SYSTEM)
	$(BIN)/python -m pytest --durations 5 -m '$(RUN) and alone' $(SYSTEM)

# The unit tests again, and which share of each package's statements they run.
coverage: COVERAGE := --cov=tailgate --cov-report=
coverage: test-unit
	@for package in workloads loadgen reports harness; do \
	  printf 'unit tests run %3d %% of %s\n' "$$($(BIN)/coverage report --format=total --include="$$package/*")" $$package; \
	done

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test-browser: install
	bash tests/browser/run

test-vllm: install
	bash tests/vllm/run

bench: install
	@for script in tests/bench/bench_*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

# What each fault of a server, a process or a network loses (docs/faults.md).
bench-faults: install
	$(BIN)/python tests/bench/bench_faults.py

clean:
	rm -rf $(VENV) runs build *.egg-info
