# Two commands do all the set-up:  make demo   make test        (make check: are the demo's numbers still the pinned ones?)
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: demo test check venv lint clean

demo: venv
	$(BIN)/editbench demo

check: demo
	$(BIN)/editbench check runs/demo --baseline runs/baselines/demo.json --strict

# One process a core, each with one thread: two pools of threads would wait for one another.
test: venv
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8

lint: venv
	$(BIN)/ruff check .
	$(BIN)/mypy

venv: $(VENV)/.ready

# A torch that is there already is kept; otherwise one version for everybody, so that numbers compare.
$(VENV)/.ready: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) runs/demo runs/cache
