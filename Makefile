# Needs make, git and Python 3.11, 3.12 or 3.13 (Airflow 2.11 and 3.0: 3.11 or 3.12). Everything else
# is installed into .venv*, at the versions in constraints/.
#
#   make demo       a DAG runs a notebook and the next task gets its exit value
#   make airflow    a whole Airflow with the examples, ready to click (AIRFLOW_PORT=8080)
#   make migrate DAGS=dir   the imports of DAGs written for the official provider; WRITE=1 changes them
#   make test       the quick tests           make lint       ruff, mypy and codespell
#   make test-all   all tests, on all lines of Airflow and of Python: well over half an hour
#   make test-dag-runs   single DAG runs in an Airflow process, without a scheduler
#   make test-airflow-2.11, -3.0, -3.1, -3.2   the tests that depend on Airflow, on another line of it
#   make test-python-3.12, -3.13   the quick tests on another Python
#   make test-standalone, test-standalone-2.11, -3.0   whole Airflows; they are parts of test-all, like
#   make test-slow, test-real-clients
#   make test-distributed   Celery, PostgreSQL, Redis, two workers and triggerers; INSTALL=1 installs them
#   make docs       the documentation as a site, in site/: strict, links checked, no network
#   make fuzz       random answers of the service, 2000 a test (FUZZ_EXAMPLES=2000)
#   make mutants    how many changes of the code the tests notice (MUTANTS=api/retry.py for one module)
#   make dist       the distributions, and the tests of the wheel
#   make bench      what docs/benchmarks.md tells of waiting, import and memory: 25 minutes
#   make bench-scale     10,000 to 50,000 waits and a day of 100,000 runs, in virtual time: 4 minutes
#   make bench-airflow   CPU of a whole Airflow: 25 minutes; TASKS=20 ROUNDS=1 MODES=empty,official: less
#   make bench-airflow EXECUTOR=CeleryExecutor   the same with PostgreSQL and Redis
#
# PYTHON=/path/to/python3 chooses another Python.

PYTHON ?=
AIRFLOW_PORT ?= 8080
PYTEST_ARGS ?=
INSTALL ?=
FUZZ_EXAMPLES ?= 2000
DAGS ?=
WRITE ?=
MUTANTS ?=
EXECUTOR ?= LocalExecutor
TASKS ?=
ROUNDS ?=
MODES ?=
REPORT ?=
# The whole check runs "slow and not thorough", and likewise the others.
SLOW ?= slow
STANDALONE ?= standalone
DISTRIBUTED ?= distributed
REAL_CLIENTS ?= real_clients
export PYTHON
# Tests start hundreds of processes: each would compile this package anew.
unexport PYTHONDONTWRITEBYTECODE

# Tests wait half of their time: six processes took 191 s on two cores, and four 221 s.
TEST_PROCESSES ?= 6
# In the order of the files: the few slow tests of a file must not come last. Each process imports
# and collects all tests, 6 s of processor time, so one process has no helpers.
IN_PARALLEL = $(if $(filter 1,$(TEST_PROCESSES)),,-n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder)
# The programs of the documents are run on Airflow 3.3 only.
DAGS_ON_OLDER = tests/end_to_end --ignore=tests/end_to_end/test_docs.py
DAGS_BETWEEN = tests/end_to_end/test_failures.py \
	$(addprefix --ignore=tests/package/test_,argument_matrix.py argument_matrix_kills.py fault_matrix.py)
QUICK = not slow and not standalone and not distributed and not real_clients
# Many cases of what other quick tests show with few. Only "make test" leaves them out: all lines of
# Airflow and all Pythons have them. EXHAUSTIVE=1 has them there, too.
EXHAUSTIVE ?=
# The tests that Airflow's version can make a difference to, and the others.
OF_AIRFLOW = airflow_compat decorators hooks operators package sensors test_links.py triggers ui
NOT_OF_AIRFLOW = $(addprefix package/test_,docs.py fuzz.py official_parity.py test_layout.py workflows.py) \
	triggers/polling
TESTS_WITH_AIRFLOW = $(OF_AIRFLOW:%=tests/%) $(NOT_OF_AIRFLOW:%=--ignore=tests/%)
TESTS_WITHOUT_AIRFLOW = $(filter-out $(OF_AIRFLOW:%=tests/%) tests/end_to_end, \
	$(patsubst %/__init__.py,%,$(wildcard tests/*/__init__.py)) $(wildcard tests/test_*.py)) \
	$(NOT_OF_AIRFLOW:%=tests/%)
# The lines besides 3.3, on which all other targets run. All whole DAGs run on those of STANDALONE_LINES.
# On the others, which lie between 3.0 and 3.3, those of one test module do, and the matrices of all
# arguments and all faults are left out.
AIRFLOW_LINES = 2.11 3.0 3.1 3.2
STANDALONE_LINES = 2.11 3.0
# The Pythons on which the quick tests can be run beside the one that is found first.
PYTHON_VERSIONS = 3.12 3.13
TESTS ?= tests
# The files with tests of a marker: to collect all files takes 20 s of processor time.
WITH_MARKER = $(sort $(shell grep -rlw --include='test_*.py' 'mark.$1' tests))
# Several targets may run at a time; their caches are apart or there is none.
PYTEST_CACHE ?= -p no:cacheprovider
# Older lines warn of what newer libraries deprecate, and nobody will change them for it.
PYTEST_OLDER = $(PYTEST_CACHE) \
	-W ignore::DeprecationWarning -W ignore::PendingDeprecationWarning

TEST_AIRFLOW = $(AIRFLOW_LINES:%=test-airflow-%)
TEST_PYTHON = $(PYTHON_VERSIONS:%=test-python-%)
TEST_STANDALONE = $(STANDALONE_LINES:%=test-standalone-%)

.PHONY: help demo airflow migrate test test-all bench bench-scale bench-airflow fuzz mutants test-dag-runs test-distributed test-slow test-standalone test-real-clients lint docs dist format constraints clean \
	venv venv-dev $(TEST_AIRFLOW) $(TEST_PYTHON) $(TEST_STANDALONE)

help:
	@sed -n 's/^#  *make/  make/p' Makefile

demo: venv
	@.venv/bin/python -m scripts.demo

airflow: venv
	@.venv/bin/python -m scripts.standalone --port $(AIRFLOW_PORT)

# The command's exit code 1 says that there are changes. For make it would be an error.
migrate:
	@test -n "$(DAGS)" || { echo "Error: name a folder: make migrate DAGS=dir" >&2; exit 2; }
	@sh scripts/venv.sh .venv 3.3 migrate
	@.venv/bin/python -m airflow_jobs_provider.migrate $(if $(WRITE),--write) $(DAGS) || test $$? = 1

test: venv-dev
	.venv/bin/python -m pytest $(IN_PARALLEL) -m "$(QUICK)$(if $(EXHAUSTIVE),, and not exhaustive)" \
		--ignore=tests/end_to_end $(TESTS) $(PYTEST_ARGS)

test-dag-runs: venv-dev
	.venv/bin/python -m pytest $(IN_PARALLEL) -m "$(QUICK)" tests/end_to_end $(PYTEST_ARGS)

test-all: venv-dev
	.venv/bin/python -m pytest -m "not distributed" $(PYTEST_ARGS)
	$(MAKE) $(TEST_AIRFLOW) $(TEST_PYTHON) $(TEST_STANDALONE) test-distributed

bench: venv-dev
	.venv/bin/python scripts/install.py constraints/airflow-3.3.txt --editable '.[bench]'
	.venv/bin/python -m benchmarks.report

bench-scale: venv-dev
	.venv/bin/python -m benchmarks.simulate

# Only the whole measurement goes into docs/benchmarks.md, unless REPORT=1 asks for it.
AIRFLOW_COSTS = $(if $(TASKS),--tasks $(TASKS)) $(if $(ROUNDS),--rounds $(ROUNDS)) \
	$(if $(MODES),--modes $(MODES)) $(if $(TASKS)$(ROUNDS)$(MODES),$(if $(REPORT),--report),--report)

# In an environment without the tests' packages: what is installed beside Airflow costs CPU, too.
bench-airflow:
ifeq ($(EXECUTOR),CeleryExecutor)
	@sh scripts/services.sh
	@sh scripts/venv.sh .venv-bench-distributed 3.3 bench,distributed
	.venv-bench-distributed/bin/python -m benchmarks.airflow_costs --distributed $(AIRFLOW_COSTS)
else
	@sh scripts/venv.sh .venv-bench 3.3 bench
	.venv-bench/bin/python -m benchmarks.airflow_costs $(AIRFLOW_COSTS)
endif

test-standalone: venv-dev
	.venv/bin/python -m pytest -m "$(STANDALONE)" tests/end_to_end $(PYTEST_ARGS)

# The quick tests have these with a fixed seed. All are in one file: it is divided among the processes.
fuzz: venv-dev
	FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) .venv/bin/python -m pytest -n $(TEST_PROCESSES) --dist worksteal \
		tests/package/test_fuzz.py $(PYTEST_ARGS)

mutants: venv-dev
	.venv/bin/python scripts/install.py constraints/airflow-3.3.txt --editable '.[mutants]'
	nice -n 10 .venv/bin/python -m scripts.mutants $(MUTANTS)

test-slow: venv-dev
	.venv/bin/python -m pytest -m "$(SLOW)" $(call WITH_MARKER,slow) $(PYTEST_ARGS)

test-real-clients: venv-dev
	.venv/bin/python -m pytest -m "$(REAL_CLIENTS)" $(call WITH_MARKER,real_clients) $(PYTEST_ARGS)

$(TEST_AIRFLOW): test-airflow-%:
	@sh scripts/venv.sh .venv-$* $* dev
	.venv-$*/bin/python -m pytest $(IN_PARALLEL) -m "$(QUICK)" $(PYTEST_OLDER) \
		$(TESTS_WITH_AIRFLOW) \
		$(if $(filter $*,$(STANDALONE_LINES)),$(DAGS_ON_OLDER),$(DAGS_BETWEEN)) \
		$(PYTEST_ARGS)

$(TEST_PYTHON): test-python-%:
	@sh scripts/venv.sh .venv-py$* 3.3 dev $*
	.venv-py$*/bin/python -m pytest $(IN_PARALLEL) -m "$(QUICK)" $(PYTEST_CACHE) \
		--ignore=tests/end_to_end $(TESTS) $(PYTEST_ARGS)

$(TEST_STANDALONE): test-standalone-%:
	@sh scripts/venv.sh .venv-$* $* dev
	.venv-$*/bin/python -m pytest -m "$(STANDALONE)" $(PYTEST_OLDER) tests/end_to_end $(PYTEST_ARGS)

test-distributed:
	@INSTALL=$(INSTALL) sh scripts/services.sh
	@sh scripts/venv.sh .venv-distributed 3.3 dev,distributed
	.venv-distributed/bin/python -m pytest -m "$(DISTRIBUTED)" tests/end_to_end $(PYTEST_ARGS)

lint: venv-dev
	.venv/bin/python -m ruff check .
	.venv/bin/python -m ruff format --check .
	.venv/bin/python -m mypy airflow_jobs_provider tests benchmarks scripts
	.venv/bin/codespell

# Material's note on MkDocs 2, which has no plugins, is not about this site: pyproject.toml excludes it.
docs:
	@sh scripts/venv.sh .venv-docs none docs
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/python -m mkdocs build --strict
	@echo "The site is in site/: open site/index.html"

# The distributions in dist/, and the tests of this wheel in an empty environment. The same commit
# gives the same bytes: the files in them have the time of the commit.
dist: export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 1580601600)
dist: venv-dev
	.venv/bin/python scripts/install.py constraints/airflow-3.3.txt --editable '.[release]'
	.venv/bin/python -m scripts.serialized_triggers --check
	rm -rf dist
	.venv/bin/python -m build --no-isolation --outdir dist
	.venv/bin/python -m twine check --strict dist/*
	TEST_WHEEL=$$(ls dist/*.whl) .venv/bin/python -m pytest tests/packaging $(PYTEST_ARGS)

format: venv-dev
	.venv/bin/python -m ruff check --fix .
	.venv/bin/python -m ruff format .

constraints:
	@"$$(sh scripts/find-python.sh 3.3)" scripts/constraints.py

venv:
	@sh scripts/venv.sh .venv 3.3 local

venv-dev:
	@sh scripts/venv.sh .venv 3.3 dev

clean:
	rm -rf .venv .venv-* .demo dist site .mypy_cache .ruff_cache .pytest_cache
