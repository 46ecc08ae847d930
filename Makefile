# `make demo` and `make test` need Python 3.11 or newer and nothing else: they install every version of constraints.txt
# into .venv once. On Linux pip's torch is the build with CUDA; for the smaller build without it, run
#     PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make demo
# and for another CUDA version name its index. PYTHON=/path/to/python chooses the interpreter.

SHELL := /bin/sh
PYTHON ?=
CANDIDATES := $(if $(PYTHON),"$(PYTHON)",python3.13 python3.12 python3.11 python3 python)
VENV_PYTHON := .venv/bin/python
STAMP := .venv/.installed
# Small models do not gain from a second thread: pytest-xdist starts one process per core instead.
ONE_THREAD := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
MAIN_TESTS := tests/modeling tests/trainers/core tests/trainers/counting tests/trainers/density \
	tests/count_clip/test_import.py

.PHONY: help demo test test-newest test-lowest lint format setup lock clean
.DEFAULT_GOAL := help

help:
	@echo "make demo         train a small CLIP to count and a density model on new classes, count, write demo_output/"
	@echo "make test         run the tests"
	@echo "make test-newest  run the main tests on the newest versions that pyproject.toml admits, in .venv-newest"
	@echo "make test-lowest  run the main tests on the lowest versions that pyproject.toml admits, in .venv-lowest"
	@echo "make lint         check style (ruff) and types (mypy)"
	@echo "make format       rewrite the files in the style that 'make lint' checks"
	@echo "make setup        only make .venv, as 'demo', 'test', 'lint' and 'format' do first"
	@echo "make lock         write constraints.txt: the newest versions that pyproject.toml and .ci/held.txt admit"
	@echo "make clean        remove the environments and what the commands and Python generated, except demo_output/"

demo: setup
	OMP_WAIT_POLICY=PASSIVE $(VENV_PYTHON) -m count_clip demo --output demo_output

test: setup
	$(ONE_THREAD) $(VENV_PYTHON) -m pytest -q -n auto

# Both keep the torch of .ci/held.txt, as PyPI has no older builds for CPUs.
test-newest:
	@$(find_python); "$$python" -m venv --clear .venv-newest; $(call install,.venv-newest/bin/python,)
	$(ONE_THREAD) .venv-newest/bin/python -m pytest -q -n auto $(MAIN_TESTS)

test-lowest:
	@$(find_python); "$$python" -m venv --clear .venv-lowest; \
	"$$python" .ci/lowest.py > .venv-lowest/lowest.txt; \
	$(call install,.venv-lowest/bin/python,-c .venv-lowest/lowest.txt)
	$(ONE_THREAD) .venv-lowest/bin/python -m pytest -q -n auto $(MAIN_TESTS)

lint: setup
	$(typecheck_tree)
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .
	$(VENV_PYTHON) -m mypy

format: setup
	$(VENV_PYTHON) -m ruff check --fix .
	$(VENV_PYTHON) -m ruff format .

# The stamp, written last, holds a checksum of what is installed and the folder, which an editable installation refers to.
setup:
	@key="$$(cat pyproject.toml constraints.txt | cksum) $$(pwd -P)"; \
	if [ -x $(VENV_PYTHON) ] && [ "$$(cat $(STAMP) 2>/dev/null)" = "$$key" ]; then exit 0; fi; \
	exec 9>.setup.lock; \
	if command -v flock >/dev/null 2>&1; then flock 9; fi; \
	if [ -x $(VENV_PYTHON) ] && [ "$$(cat $(STAMP) 2>/dev/null)" = "$$key" ]; then exit 0; fi; \
	rm -f $(STAMP); \
	if ! $(VENV_PYTHON) -c '$(suitable)' >/dev/null 2>&1; then \
		$(find_python); \
		echo "Creating .venv with $$("$$python" --version)"; \
		"$$python" -m venv --clear .venv; \
	fi; \
	$(call install,$(VENV_PYTHON),-c constraints.txt); \
	printf '%s' "$$key" > $(STAMP)

lock:
	@$(find_python); folder="$$(mktemp -d)"; trap 'rm -rf "$$folder"' EXIT; \
	"$$python" -m venv "$$folder/venv"; \
	$(call install,"$$folder/venv/bin/python",-c .ci/held.txt); \
	"$$folder/venv/bin/python" -m pip freeze --exclude-editable > "$$folder/frozen.txt"; \
	{ echo "# Every version that 'make' and CI install, written by 'make lock'."; sed 's/+.*//' "$$folder/frozen.txt"; } \
		> constraints.txt; \
	echo "Wrote constraints.txt: $$(grep -c == constraints.txt) packages"

clean:
	rm -rf .venv .venv-newest .venv-lowest .setup.lock build dist count_clip.egg-info
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -type d -name __pycache__ -prune -exec rm -rf {} +

torch := $(shell grep '^torch==' .ci/held.txt)
suitable := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
version_of_torch := import importlib.metadata; print(importlib.metadata.version("torch").split("+")[0])

# Set $$python to an interpreter that can make an environment.
define find_python
set -e; \
python=; \
for candidate in $(CANDIDATES); do \
	if "$$candidate" -c '$(suitable)' >/dev/null 2>&1; then python="$$candidate"; break; fi; \
done; \
if [ -z "$$python" ]; then \
	echo "Expected Python 3.11 or newer with its venv and ensurepip modules, but found none: tried" \
		$(CANDIDATES)". Install one (Debian and Ubuntu also need the package python3-venv) or name it:" \
		"make PYTHON=/path/to/python ..." >&2; \
	exit 1; \
fi
endef

# Install torch, then count-clip and its dependencies, with the Python $(1) and the options $(2) of pip.
define install
set -e; \
if [ -t 1 ]; then quiet=; else quiet=-q; fi; \
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1; \
echo "Installing $(torch) (the first time this takes minutes)"; \
$(1) -m pip install $$quiet "$(torch)"; \
echo "Installing count-clip and its dependencies"; \
$(1) -m pip install $$quiet $(2) -e ".[demo,dev,scenes]"; \
found="torch==$$($(1) -c '$(version_of_torch)')"; \
if [ "$$found" != "$(torch)" ]; then \
	echo "Expected $(torch) after the installation, but found $$found: a dependency replaced it. Look for the one that" \
		"requires another torch." >&2; \
	exit 1; \
fi
endef

# The packages under the names that Python gives them, count_clip.modeling and so on, as links for the type checker.
define typecheck_tree
@rm -rf .venv/typecheck && mkdir -p .venv/typecheck/count_clip
@for path in count_clip/*; do ln -s "../../../$$path" .venv/typecheck/count_clip/; done
@for package in datasets_scripts evaluation modeling trainers; do ln -s "../../../$$package" .venv/typecheck/count_clip/; done
endef
