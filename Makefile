# make demo    set up, then the whole way on a small drawn data set, to a registered model and pictures
# make test    set up, then all tests
# make test-quick   set up, then the tests without Ray that are not slow, on all cores
# make sbom    the packages of .venv with versions and licences, in CycloneDX: build/sbom.json
# make audit   known vulnerabilities in the versions of constraints.txt, by pip-audit; needs the network
# make test-gpu   tests.gpu_check, which needs one GPU; then tests that need two (NCCL, bfloat16, two ranks)
# PYTHON=python3.12 make ... takes another interpreter; ARGS='-k boxes' goes on to pytest, the benchmarks or the demo.

PYTHON ?= python3
ARGS ?=
VENV := .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed

.PHONY: help setup demo test test-quick test-gpu lint format sbom audit bench bench-learn chaos chaos-data chaos-sweep chaos-cluster clean

help:
	@echo "make demo | test | test-quick | test-gpu | lint | format | sbom | audit | bench | bench-learn | chaos | chaos-data | chaos-sweep | chaos-cluster | setup | clean"

setup: $(INSTALLED)

# Newer than the two files that decide what is installed: then there is nothing to do.
$(INSTALLED): pyproject.toml constraints.txt
	@command -v $(PYTHON) > /dev/null || { echo "no $(PYTHON) found: install Python 3.11 or newer, or name it: make PYTHON=/path/to/python" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is $$($(PYTHON) --version 2>&1): Python 3.11 or newer is needed; name one: make PYTHON=python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --constraint constraints.txt setuptools
	$(RUN) -m pip install --constraint constraints.txt --no-build-isolation --editable '.[workflow,dev]'
	@touch $@

demo: setup
	$(RUN) -m pipelines demo $(ARGS)

# Tests that start Ray wait for one process after another to start: two files at once use two cores.
test: setup
ifeq ($(strip $(ARGS)),)
	$(RUN) -m pytest -n auto -m "not ray"
	$(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m ray
else
	$(RUN) -m pytest $(ARGS)
endif

test-quick: setup
	$(RUN) -m pytest -n auto -m "not ray and not slow" $(ARGS)

# Not the same as skipping all of them in silence: without GPUs it says so, and fails.
test-gpu: setup
	@$(RUN) -c 'import sys, torch; torch.cuda.is_available() or sys.exit("make test-gpu needs two GPUs, 0 here: nothing was tested")'
	$(RUN) -m tests.gpu_check --device cuda
	@$(RUN) -c 'import sys, torch; n = torch.cuda.device_count(); n > 1 or sys.exit(f"all checks of one GPU hold; the other tests need two GPUs, {n} here: they were not run")'
	$(RUN) -m pytest -m gpu $(ARGS)

lint: setup
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m mypy

format: setup
	$(RUN) -m ruff format
	$(RUN) -m ruff check --fix

# In an environment of its own, which is not listed.
sbom: setup
	$(PYTHON) -m venv build/sbom
	build/sbom/bin/python -m pip install --quiet cyclonedx-bom==7.5.0
	build/sbom/bin/cyclonedx-py environment $(VENV) --output-reproducible --output-file build/sbom.json
	@echo build/sbom.json

# pip-audit passes over what its database does not know, also if the database does not answer: --strict makes that an
# error, and a version with known vulnerabilities shows first whether it answers.
AUDIT = build/audit/bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off $(ARGS)

audit:
	$(PYTHON) -m venv build/audit
	build/audit/bin/python -m pip install --quiet pip-audit==2.10.1
	@echo 'jinja2==2.4.1' > build/audit/known.txt
	@$(AUDIT) --format json --requirement build/audit/known.txt 2> /dev/null | grep -q fix_versions \
		|| { echo "make audit: no answer from the database of vulnerabilities: nothing was audited (make sbom lists the packages for an audit elsewhere)" >&2; exit 2; }
	$(AUDIT) --requirement constraints.txt

bench: setup
	$(RUN) -m tests.benchmarks.run $(ARGS)

bench-learn: setup
	$(RUN) -m tests.benchmarks.learn $(ARGS)

chaos: setup
	$(RUN) -m tests.tools.chaos $(ARGS)

chaos-data: setup
	$(RUN) -m tests.tools.chaos_data $(ARGS)

chaos-sweep: setup
	$(RUN) -m tests.tools.chaos_sweep $(ARGS)

chaos-cluster: setup
	$(RUN) -m tests.tools.chaos_cluster $(ARGS)

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find objgan pipelines tune cluster tests -name __pycache__ -type d -prune -exec rm -rf {} +
