# Two commands do everything on a fresh machine with Python 3.11 or newer: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test slow tutorials docs fuzz lowest audit notebooks lint type bench-quick clean

demo: .venv/demo
	$(BIN)/python tutorials/demo.py

# Each worker has one thread: two workers with two threads each on two cores are several times slower. With worksteal each
# begins with half of the tests in their order, so that only one of them makes the fixtures of a file.
test: .venv/test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal

# Runs the tests that take more than half a minute each.
slow: .venv/test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal -m slow

# Executes every tutorial and writes nothing.
tutorials: .venv/test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal -m tutorial tests/repository/test_tutorials.py

# Fuzzes the readers of untrusted files, guided by coverage, for at most SECONDS or RUNS inputs each. The same SEED gives the
# same inputs; SEED=0 draws a new one. A file that breaks a reader stays in build/fuzz.
SECONDS ?= 60
RUNS ?= -1
SEED ?= 1
fuzz: .venv/fuzz
	for target in map_file h5ad; do OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz/fuzz.py $$target --seconds $(SECONDS) --runs $(RUNS) --seed $(SEED) --corpus build/fuzz/$$target || exit 1; done

# Runs the whole suite in the lowest versions that pyproject.toml allows. It downloads several GB: for Linux, PyPI has such a
# PyTorch with CUDA only. Without the variable, the old packages of Jupyter warn that it is not set.
lowest: .venv-lowest/test
	OMP_NUM_THREADS=1 JUPYTER_PLATFORM_DIRS=1 .venv-lowest/bin/python -m pytest --numprocesses 2

# Looks up known vulnerabilities of the pinned versions. It is strict: a package that could not be looked up is a failure.
audit: .venv-audit/ready
	.venv-audit/bin/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

# Run this after a change of a tutorial, or of something that its outputs depend on.
notebooks: .venv/test
	$(BIN)/python tutorials/execute.py

# Builds the site without network; every warning is an error. If chromium is there, every page is opened at two widths.
docs: .venv/docs
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx --fail-on-warning --nitpicky --keep-going --fresh-env --quiet docs docs/_build/html
	$(BIN)/python docs/widths.py

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: .venv/dev
	$(BIN)/mypy

bench-quick: .venv/test
	for script in planted unseen synthetic w2_benchmark cells calibration selection regression approximation throughput speed shapes screen gpu atlas scaling growth conditions first_hour; do $(BIN)/python benchmarks/$$script.py --quick || exit 1; done

.venv/bin/python:
	$(PYTHON) -m venv .venv

# Each set of requirements has a stamp, which is renewed when pyproject.toml or the pins change.
.venv/demo: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) --editable '.[cli,ot]'
	@touch $@

.venv/test: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) --editable '.[test,browser,workflow,arrow]'
	@touch $@

.venv/docs: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) --editable '.[docs]'
	@touch $@

.venv/dev: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) --editable '.[dev]'
	@touch $@

.venv/fuzz: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) --editable '.[test,fuzz]'
	@touch $@

.venv-lowest/test: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-lowest.txt --editable '.[test]'
	@touch $@

.venv-audit/ready:
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet --disable-pip-version-check 'pip-audit>=2.10'
	@touch $@

clean:
	rm -rf .venv .venv-lowest .venv-audit build demo dist docs/_build docs/api docs/tutorials .pytest_cache .mypy_cache .ruff_cache
