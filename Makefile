# exafsd. On a machine with Python 3.11 and make: `make demo`, `make test`.

PYTHON ?= python3
DEMO_SECONDS ?= 60
DEMO_RATE ?= 5
MODELS ?= $(basename $(notdir $(wildcard training/exafsd_training/zoo/*.toml)))
STEPS ?=
DATA ?= ../shared/data
SPECTRA ?= 360000
BASE ?= HEAD
FIT ?=
KILLS ?= 50

# Two environments: the daemon alone, which never has TensorFlow, and everything for development.
DAEMON := .venv-daemon
DEV := .venv
PIP_FLAGS := --disable-pip-version-check --quiet -c constraints.txt

.PHONY: help demo test kills golden mutations lint test-wheels tutorial-test docs bench bench-memory train schemas clean

help:
	@echo "make demo [DEMO_SECONDS=60 DEMO_RATE=5]  simulated beamline to published results"
	@echo "make test         all tests (without the wheels)"
	@echo "make test-wheels  build the wheels and try each in an environment of its own"
	@echo "make tutorial-test  the tutorial word for word, with an environment installed for it"
	@echo "make kills        a daemon that is killed KILLS=$(KILLS) times, and what is left of its runs"
	@echo "make golden       results of commit BASE=$(BASE) and of the working tree, bit for bit"
	@echo "make docs         build the documentation into build/site"
	@echo "make lint         ruff, pyright, import-linter"
	@echo "make bench        benchmarks, measured side by side, into docs/benchmarks.md"
	@echo "make bench-memory memory of the daemon over SPECTRA=$(SPECTRA) spectra"
	@echo "make train        train, judge and export the models that ship (MODELS=, STEPS=)"
	@echo "make schemas      generate docs/schemas, docs/models.md and docs/reference again"

# pip is upgraded first: the one that comes with Python 3.11 knows no dependency groups
$(DAEMON)/.stamp: daemon/pyproject.toml constraints.txt
	@echo "setting up $(DAEMON) (about two minutes)"
	@$(PYTHON) -m venv $(DAEMON)
	@$(DAEMON)/bin/python -m pip install --disable-pip-version-check --quiet --upgrade pip
	@$(DAEMON)/bin/python -m pip install $(PIP_FLAGS) -e "daemon[daemon,dashboard]"
	@touch $@

$(DEV)/.stamp: daemon/pyproject.toml training/pyproject.toml export/pyproject.toml pyproject.toml constraints.txt
	@echo "setting up $(DEV) (about four minutes)"
	@$(PYTHON) -m venv $(DEV)
	@$(DEV)/bin/python -m pip install --disable-pip-version-check --quiet --upgrade pip
	@$(DEV)/bin/python -m pip install $(PIP_FLAGS) -e "daemon[daemon,dashboard,kafka,dask]" -e training -e export \
		--group test --group lint --group wheels
	@touch $@

demo: $(DAEMON)/.stamp
	$(DAEMON)/bin/exafsd demo --seconds $(DEMO_SECONDS) --rate $(DEMO_RATE)

# a file's tests stay together: they share servers. Files are given out in the order of
# tests/conftest.py, not by their number of tests: the longest have one. Three workers on two cores,
# since tests wait for processes that they have started (834 s, with two workers 1,022).
test: $(DEV)/.stamp
	$(DEV)/bin/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --durations 15

lint: $(DEV)/.stamp
	$(DEV)/bin/ruff check .
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/pyright
	$(DEV)/bin/lint-imports

test-wheels: $(DEV)/.stamp
	$(DEV)/bin/python tests/wheels/check_wheels.py

tutorial-test: $(DEV)/.stamp
	EXAFSD_TUTORIAL=fresh $(DEV)/bin/python -m pytest tests/docs/test_tutorial.py

docs: $(DEV)/.stamp
	NO_MKDOCS_2_WARNING=1 $(DEV)/bin/mkdocs build --strict

# rexafs is only compared with, so it is not among what tests need
$(DEV)/.bench: $(DEV)/.stamp
	@$(DEV)/bin/python -m pip install $(PIP_FLAGS) --group bench
	@touch $@

kills: $(DEV)/.stamp
	PYTHONPATH=tests $(DEV)/bin/python tests/killing.py --kills $(KILLS)
	PYTHONPATH=tests $(DEV)/bin/python tests/killing.py --kills $(KILLS) --backfill

golden: $(DEV)/.stamp
	$(DEV)/bin/python tests/golden/golden_record.py compare $(BASE) $(FIT)

bench: $(DEV)/.bench
	$(DEV)/bin/python tests/bench/bench.py

bench-memory: $(DEV)/.bench
	$(DEV)/bin/python tests/bench/bench.py memory --spectra $(SPECTRA)

mutations: $(DEV)/.stamp
	$(DEV)/bin/python tests/bench/mutations.py

train: $(DEV)/.stamp
	@for model in $(MODELS); do \
		nice $(DEV)/bin/exafsd-train fit --config $$model --from-scratch --out runs/$$model $(if $(STEPS),--steps $(STEPS)) --workers 2 && \
		$(DEV)/bin/exafsd-train coverage runs/$$model --workers 2 && \
		if [ -d $(DATA) ]; then $(DEV)/bin/exafsd-train evaluate runs/$$model --data $(DATA); fi && \
		$(DEV)/bin/exafsd-export bundle runs/$$model --out daemon/exafsd/models/$$model || exit 1; \
	done

schemas: $(DEV)/.stamp
	$(DEV)/bin/python -m exafsd.contract.schemas docs/schemas
	$(DEV)/bin/exafsd config schema > docs/schemas/settings.json
	$(DEV)/bin/exafsd models page > docs/models.md
	$(DEV)/bin/python docs/generate.py

clean:
	rm -rf $(DAEMON) $(DEV) runs build
