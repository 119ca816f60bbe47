# Two commands, each complete on a fresh machine with python3 (3.10 or newer) and make:
#   make demo    a video from docs/demo/scene.png and the sentence in docs/demo/prompt.txt, in outputs/demo/
#   make test    the tests
# Both set up .venv first: about 6.9 GB, once. A second run starts at once.

PYTHON ?= python3
WORKERS ?= 2
DEMO_IMAGE ?= docs/demo/scene.png
DEMO_PROMPT ?= $(shell cat docs/demo/prompt.txt)
DEMO_OUT ?= outputs/demo

PY := .venv/bin/python
READY := .venv/.ready

.PHONY: help demo test lint clean-venv

help:
	@sed -n '1,4s/^# \{0,1\}//p' Makefile

# torch comes first and sam2 is built without isolation: its source package asks for torch at build time, and pip
# would download and unpack a second torch for that alone. SAM2_BUILD_CUDA=0: its CUDA extension is not needed.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else 1)' || { \
	  echo "through-the-mask needs Python 3.10 or newer; found $$($(PYTHON) --version 2>&1)." \
	  "Try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(PY) || { echo "[1/3] Making .venv ..."; $(PYTHON) -m venv .venv || { rm -rf .venv; \
	  echo "python3 -m venv failed; on Debian or Ubuntu: sudo apt install python3-venv"; exit 1; }; }
	@echo "[2/3] Installing torch (the largest part; minutes, once) ..."
	@$(PY) -m pip install --quiet --disable-pip-version-check 'torch>=2.6' torchvision 'setuptools>=77' wheel
	@echo "[3/3] Installing through-the-mask and the rest ..."
	@SAM2_BUILD_CUDA=0 $(PY) -m pip install --quiet --disable-pip-version-check --no-build-isolation -e '.[train,dev,llm,data]'
	@touch $@

demo: $(READY)
	@.venv/bin/ttm generate $(DEMO_IMAGE) "$(DEMO_PROMPT)" -o $(DEMO_OUT) --overwrite

test: $(READY)
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS)

lint: $(READY)
	$(PY) -m ruff check .
	$(PY) -m mypy $(wildcard ttm stages benchmarks tools)

clean-venv:
	rm -rf .venv
