# Two commands do everything, each by itself and in any order: `make demo` and `make test`. They need Python 3.11 or
# newer and nothing else, put all they install into .venv, and start at once the second time.
#
# On torch: the version is the one in constraints.txt and the build is the one pip chooses, which on Linux is the build
# with CUDA; a machine with a GPU uses it without another word. To get the smaller CPU build there, say
#     PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make demo
# and for another CUDA version the index of that one. PYTHON=/path/to/python chooses the interpreter.

SHELL := /bin/sh
PYTHON ?=
CANDIDATES := $(if $(PYTHON),"$(PYTHON)",python3.13 python3.12 python3.11 python3 python)
VENV_PYTHON := .venv/bin/python
STAMP := .venv/.installed

.PHONY: help demo test lint format setup clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    teach a small CLIP to count and a density model new things, count with them, write demo_output/"
	@echo "make test    run the tests"
	@echo "make lint    check style (ruff) and types (mypy)"
	@echo "make format  rewrite the files in the style that 'make lint' checks"
	@echo "make setup   only make .venv, as every command above does first"
	@echo "make clean   remove .venv and everything else that these commands and Python left here, but demo_output/"

demo: setup
	$(VENV_PYTHON) -m count_clip demo --output demo_output

# One test process a core, each with one thread: threads of torch and OpenBLAS only wait for each other in small models.
test: setup
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(VENV_PYTHON) -m pytest -q -n auto

lint: setup
	$(typecheck_tree)
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .
	$(VENV_PYTHON) -m mypy

format: setup
	$(VENV_PYTHON) -m ruff check --fix .
	$(VENV_PYTHON) -m ruff format .

# The environment is up to date when the stamp, written last, holds the checksum of the two files that say what is
# installed, and the place (an editable installation knows where it lies, so a folder that was moved installs again).
setup:
	@key="$$(cat pyproject.toml constraints.txt | cksum) $$(pwd -P)"; \
	if [ -x $(VENV_PYTHON) ] && [ "$$(cat $(STAMP) 2>/dev/null)" = "$$key" ]; then exit 0; fi; \
	exec 9>.setup.lock; \
	if command -v flock >/dev/null 2>&1; then flock 9; fi; \
	if [ -x $(VENV_PYTHON) ] && [ "$$(cat $(STAMP) 2>/dev/null)" = "$$key" ]; then exit 0; fi; \
	set -e; \
	rm -f $(STAMP); \
	if ! $(VENV_PYTHON) -c '$(suitable)' >/dev/null 2>&1; then \
		python=; \
		for candidate in $(CANDIDATES); do \
			if "$$candidate" -c '$(suitable)' >/dev/null 2>&1; then python="$$candidate"; break; fi; \
		done; \
		if [ -z "$$python" ]; then \
			echo "Expected Python 3.11 or newer with its venv and ensurepip modules, but found none: tried" \
				$(CANDIDATES)". Install one (on Debian and Ubuntu the package python3-venv has to be there too) or" \
				"name it: make PYTHON=/path/to/python ..." >&2; \
			exit 1; \
		fi; \
		echo "Making .venv with $$("$$python" --version)"; \
		"$$python" -m venv --clear .venv; \
	fi; \
	if [ -t 1 ]; then quiet=; else quiet=-q; fi; \
	export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1; \
	echo "Installing $(torch) (the first time this takes minutes)"; \
	$(VENV_PYTHON) -m pip install $$quiet "$(torch)"; \
	echo "Installing count-clip and what it needs"; \
	$(VENV_PYTHON) -m pip install $$quiet -c constraints.txt -e ".[demo,dev,scenes]"; \
	found="torch==$$($(VENV_PYTHON) -c '$(found)')"; \
	if [ "$$found" != "$(torch)" ]; then \
		echo "Expected $(torch) after the installation, but found $$found: a dependency replaced it. Look for the one that" \
			"asks for another torch." >&2; \
		exit 1; \
	fi; \
	printf '%s' "$$key" > $(STAMP)

clean:
	rm -rf .venv .setup.lock build dist count_clip.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -type d -name __pycache__ -prune -exec rm -rf {} +

torch := $(shell grep '^torch==' constraints.txt)
suitable := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))

found := import importlib.metadata; print(importlib.metadata.version("torch").split("+")[0])

# The packages as Python sees them, count_clip.modeling and so on, for the type checker: links, made anew each time.
define typecheck_tree
@rm -rf .venv/typecheck && mkdir -p .venv/typecheck/count_clip
@for path in count_clip/*; do ln -s "../../../$$path" .venv/typecheck/count_clip/; done
@for package in datasets_scripts evaluation modeling trainers; do ln -s "../../../$$package" .venv/typecheck/count_clip/; done
endef
