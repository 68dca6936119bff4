# Two commands do everything: `make compare` runs the main job, `make test` passes the tests.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup compare test chaos fuzz peers bench bench-lambda lint format clean

setup: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Proctorwire needs Python 3.11 or newer: make PYTHON=python3.11 setup")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

compare: setup
	@$(BIN)/compare run $(ARGS)

# Two at a time, a file whole in one process: most tests wait for processes and clocks and not for the processor.
# Those that measure it have it alone. 5: nothing was selected, which is right for one of the two.
test: setup
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m "not alone" $(ARGS) || test $$? -eq 5
	@$(BIN)/python -m pytest -m alone --cov-append $(ARGS) || test $$? -eq 5

# Documented behaviours of API Gateway on emulators that are not ours; 136 MB from npm, into build/peers
peers: setup
	@command -v npm >/dev/null || { echo "make peers: npm is missing; install node 20 with npm" >&2; exit 1; }
	@mkdir -p build/peers
	@cd build/peers && { test -f package.json || npm init -y >/dev/null; } && test -d node_modules/serverless-offline \
		|| npm install --no-audit --no-fund --legacy-peer-deps osls@4.3.1 serverless-offline@14.8.2
	@$(BIN)/python -m pytest tests/behaviours --on ours --on ministack --on offline $(ARGS)

fuzz: setup
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt atheris
	@$(BIN)/python tests/support/fuzz.py $(ARGS)

bench-lambda: setup
	@$(BIN)/proctorwire bench-lambda $(ARGS)

bench: setup
	@$(BIN)/proctorwire bench $(ARGS)

chaos: setup
	@$(BIN)/proctorwire chaos $(ARGS)

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: setup
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
