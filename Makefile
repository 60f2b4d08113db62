# The menu. `make demo` and `make test` set up all they need.
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
STAMP  := $(VENV)/.ready
FAST   := not crash and not browser and not postgres and not gpu and not student

.PHONY: help setup demo test check check-all policies crash student bench faults clean

help:
	@echo "make demo       the main job end to end, offline, in about a minute"
	@echo "make test       set up and run the tests"
	@echo "make check      what to run before a commit: format, lint, types, floors, fast tests"
	@echo "make check-all  everything, the long crash runs too"
	@echo "make bench      CPU and latency against a bare aiohttp proxy"
	@echo "make faults     ten thousand injected faults (half an hour or more)"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 3; }
	@$(PYTHON) -m venv $(VENV) \
	  || { echo "python3 can't make a virtual environment; on Debian: apt-get install python3-venv"; exit 3; }
	$(PY) -m pip install --quiet --upgrade 'pip>=25.1'
	@echo "installing (torch is large; a few minutes the first time)"
	$(PY) -m pip install --quiet -c constraints.txt -e '.[demo,student,cose,pkcs11,postgres,timestamps]' --group dev
	@touch $(STAMP)

demo: $(STAMP)
	$(VENV)/bin/gateway demo

# A process a core and one more; each file of tests stays in one, where what it set up is.
ALL := -q -n logical --dist loadfile --no-loadscope-reorder

test: $(STAMP)
	$(PY) -m pytest $(ALL)

check: $(STAMP)
	$(PY) -m ruff format --check . && $(PY) -m ruff check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports
	$(PY) -m pytest -q -m '$(FAST)'

check-all: check
	$(PY) -m pytest $(ALL)

policies: $(STAMP)
	$(VENV)/bin/gateway policy lint policies
	$(VENV)/bin/gateway policy test policies

crash student: $(STAMP)
	$(PY) -m pytest -q -m $@

faults: $(STAMP)
	$(PY) -m tests.faults.nightly
	GATEWAY_KILLS=200 WORKER_KILLS=100 BYTES_STEP=1 \
	  $(PY) -m pytest -q tests/crash/test_gateway_kill.py tests/crash/test_workers_kill.py tests/property/test_dataset_laws.py

bench: $(STAMP)
	$(PY) benchmarks/overhead.py

clean:
	rm -rf $(VENV) build dist *.egg-info gateway-demo
