# python3, make and the package registries are all this needs.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: install run test lint test-browser test-vllm bench clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml $(wildcard loadgen/injector/http/*.[ch])
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@

run: install
	$(BIN)/tailgate run workloads/data/azure-2023-conv.yaml

# Two at a time, in the order of their files (the slow ones come first); those that measure run alone.
test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'not alone and not browser and not vllm'
	$(BIN)/python -m pytest -m 'alone and not browser and not vllm'

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

clean:
	rm -rf $(VENV) runs build *.egg-info
