# Two commands do all the set-up:  make demo   make test        (make check: are the demo's numbers still the pinned ones?)
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# The package as it is installed: methods, metrics and conf inside. mypy does not follow an editable install.
TYPED  := build/typed

.PHONY: demo test check venv lint density tests docs gpu clean

demo: venv
	$(BIN)/editbench demo

check: demo
	$(BIN)/editbench check runs/demo --baseline runs/baselines/demo.json --strict

# Style and types are checked once, as commands, and not as cases of the test suite.
test: lint tests

# One process a core, each with one thread: two pools of threads would wait for one another. A file stays in one process,
# so that what its tests share is made once.
tests: venv
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf $(TYPED) && mkdir -p $(TYPED)/editbench
	ln -s $(addprefix $(CURDIR)/,$(wildcard editbench/*) methods metrics conf) $(TYPED)/editbench/
	cd $(TYPED) && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml -p editbench

# The site of docs/ and the README, in site/. A link or an anchor that leads nowhere fails it.
docs: venv
	$(BIN)/python -c "import mkdocs, material, mkdocstrings_handlers.python" 2>/dev/null || $(BIN)/pip install --quiet -e ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
	@echo "$(CURDIR)/site/index.html"

density: venv
	$(BIN)/python benchmarks/density.py

venv: $(VENV)/.ready

# A torch that is there already is kept; otherwise one version for everybody, so that numbers compare.
# The last line says whether it works, and leaves both commands what they would look up at first.
$(VENV)/.ready: pyproject.toml setup.py
	@echo "making $(VENV): torch and the other packages, once; some minutes, by the connection"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/pip install torch==2.13.0
	$(BIN)/pip install --quiet -e ".[dev]"
	$(BIN)/editbench list > /dev/null && $(BIN)/editbench plan > /dev/null
	touch $@

# Everything that wants a GPU, once: SUMMARY.md and the numbers in runs/gpu. Started again, it goes on.
gpu: venv
	$(BIN)/python benchmarks/gpu.py --out runs/gpu

clean:
	rm -rf $(VENV) build site runs/demo runs/cache
