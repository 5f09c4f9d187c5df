# Every target sets itself up: a machine with Python >= 3.11 and make is enough.  `make help` lists them.
# Stamp files in .venv remember what is installed; they depend on setup.py and pyproject.toml, so a second run is quick.

VENV   := .venv
BIN    := $(VENV)/bin
CANDIDATES := python3 python3.14 python3.13 python3.12 python3.11 python
PYTHON ?= $(shell for p in $(CANDIDATES); do \
            $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
STEPS  := c back; l; ck; n; q
PROJECT := setup.py pyproject.toml
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test slow kernels ci lint docs docs-check architecture package parity bench clean

help:  ## what there is to make
	@sed -n 's/^\([a-z-]*\):.*##/  make \1\t/p' Makefile | expand -t 20

demo: $(VENV)/.for-demo  ## watch a backward pass, op by op (ends by itself without a terminal)
	@if [ -t 0 ] && [ -t 1 ]; then $(BIN)/python -m minidl step; else $(BIN)/python -m minidl step -c "$(STEPS)"; fi

test: $(VENV)/.for-test  ## the test suite
	$(BIN)/python -m pytest -n 2 -m "not slow"

slow: $(VENV)/.for-test  ## the tests that take longer: large networks
	$(BIN)/python -m pytest -n 2 -m slow --ignore tests/kernels --deselect tests/test_fake_device.py

kernels: $(VENV)/.for-test  ## every CUDA kernel: compiled for sm_80 and sm_90, run on the CPU in check mode and in three orders
	@$(BIN)/python -c 'import sys; from minidl.backend.cuda.nvrtc import why_no_compiler as w; sys.exit(bool(w()))' \
	    || $(BIN)/python -m pip install --quiet --config-settings editable_mode=compat --editable '.[kernels]' \
	    || echo "######## NO KERNEL IS COMPILED FOR A GPU: NVIDIA's compiler cannot be installed here. ########"
	@command -v $${MINIDL_CXX:-g++} >/dev/null || echo "######## NO KERNEL IS RUN: g++ is missing. ########"
	$(BIN)/python -m pytest -n 2 -rs tests/kernels tests/test_fake_device.py

ci: lint architecture test kernels slow docs-check package parity  ## everything: lint, architecture, suite, kernels, docs, package, parity
	@echo "make ci: all of it passed."

lint: $(VENV)/.for-ci  ## ruff
	$(BIN)/python -m ruff check .

architecture: $(VENV)/.for-test  ## import directions, file and function sizes
	$(BIN)/python -m pytest -q tests/test_architecture.py

docs: $(VENV)/.for-demo  ## write docs/ops/ again from the registry, and the table of planted bugs
	$(BIN)/python -m docs.build
	$(BIN)/python -m docs.planted

docs-check: $(VENV)/.for-demo  ## fail if a page of docs/ops/ is not what the registry says
	$(BIN)/python -m docs.build --check

package: $(VENV)/.for-ci  ## sdist -> wheel -> clean venv -> run from another directory
	$(BIN)/python tests/try_package.py

parity: $(VENV)/.for-test  ## compare with PyTorch, if it can be installed
	@if $(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/python -m pip install --quiet 'torch==2.13.0'; then \
	    if [ -d tests/parity ]; then $(BIN)/python -m pytest -n 2 tests/parity tests/test_closeness.py tests/test_create.py tests/test_dtypes.py; else echo "tests/parity: none yet"; fi; \
	else \
	    echo "######## PARITY NOT TESTED: torch==2.13.0 cannot be installed here. Nothing was compared with PyTorch. ########"; \
	fi

bench: $(VENV)/.for-test  ## the benchmarks; results and their table go to benchmarks/results
	@$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/python -m pip install --quiet 'torch==2.13.0' \
	    || echo "torch cannot be installed here: benchmarks that compare with it will say so"
	$(BIN)/python -m benchmarks

clean:  ## remove what make made
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- setting up ---------------------------------------------------------------------------------------------------

$(VENV)/.made:
	@[ -n "$(PYTHON)" ] || { echo "minidl needs Python >= 3.11; none of these is one: $(CANDIDATES)."; \
	    echo "Install one, or name it: make PYTHON=/path/to/python3.12 demo"; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; \
	    sys.exit(0 if v >= (3, 11) else f"minidl needs Python >= 3.11, and $(PYTHON) is {v[0]}.{v[1]}. Name another: make PYTHON=python3.12 demo")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments: it lacks venv or ensurepip."; \
	    echo "On Debian and Ubuntu: sudo apt install python3-venv. Or name another Python: make PYTHON=/path/to/python3 demo"; exit 1; }
	@echo "Setting up $(VENV) with $$($(PYTHON) --version); this is done once."
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.for-demo: $(VENV)/.made $(PROJECT)
	$(BIN)/python -m pip install --quiet --config-settings editable_mode=compat --editable .
	@touch $@

$(VENV)/.for-test: $(VENV)/.made $(PROJECT)
	$(BIN)/python -m pip install --quiet --config-settings editable_mode=compat --editable '.[test]'
	@touch $(VENV)/.for-demo $@

$(VENV)/.for-ci: $(VENV)/.made $(PROJECT)
	$(BIN)/python -m pip install --quiet --config-settings editable_mode=compat --editable '.[test,ci,step,browser]'
	@touch $(VENV)/.for-demo $(VENV)/.for-test $@
