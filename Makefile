# make demo: install everything and run the main job.   make test: install everything and run the tests.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
SITE   ?= build/site-venv
JOBS   ?= 3
HOSTS  := ray or netns or links
FUZZ_SECONDS ?= 600
MPCBENCH_SPU ?= .spu
SPU_PYTHON ?= python3.11

.PHONY: install spu demo test test-hosts quick fuzz check results format site drawing clean
install: $(READY)

$(READY): pyproject.toml constraints.txt requirements-nodeps.txt requirements-dev-nodeps.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' \
		|| { echo "mpcache-bench needs Python 3.11 or 3.12: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@echo "installing into $(VENV): about 6 GB, most of it torch; minutes, and no output meanwhile"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/pip install --quiet --no-deps --requirement requirements-nodeps.txt --requirement requirements-dev-nodeps.txt
	touch $@

spu: $(MPCBENCH_SPU)/.ready  # SecretFlow-SPU, for the engine spu; in an environment of its own: it needs an old numpy

$(MPCBENCH_SPU)/.ready: requirements-spu.txt
	@$(SPU_PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 12))' \
		|| { echo "SPU 0.9.5 needs Python 3.10 or 3.11: make spu SPU_PYTHON=python3.11"; exit 1; }
	test -x $(MPCBENCH_SPU)/bin/python || $(SPU_PYTHON) -m venv $(MPCBENCH_SPU)
	$(MPCBENCH_SPU)/bin/pip install --quiet --only-binary :all: --no-deps --requirement requirements-spu.txt
	$(MPCBENCH_SPU)/bin/python -c 'import spu'
	touch $@

demo: install
	$(BIN)/mpcache-bench run examples/quickstart.yaml --out runs/quickstart

test: install  # tests that need neither a cluster nor an emulated host; at most ten minutes on two cores
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses $(JOBS) --dist worksteal -m "not ($(HOSTS))"

test-hosts: install  # clusters, emulated hosts, faults; these tests wait for half of their time
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder -m "$(HOSTS)"

quick: install  # for frequent use: less than two minutes on two cores
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses $(JOBS) --dist loadfile -m "not ($(HOSTS) or slow)"

fuzz: install  # property tests on new examples; make fuzz FUZZ_SECONDS=3600
	end=$$(( $$(date +%s) + $(FUZZ_SECONDS) )); while [ "$$(date +%s)" -lt "$$end" ]; do \
		$(BIN)/pytest --hypothesis-profile fuzz -m "hypothesis and not ($(HOSTS))" || exit 1; done

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

results: install  # the tables of docs/results/, from the committed records
	$(BIN)/python -m benchmarks.results

site: $(SITE)/bin/mkdocs  # the documents, every link checked; build/site/index.html
	NO_MKDOCS_2_WARNING=1 $(SITE)/bin/mkdocs build --strict

$(SITE)/bin/mkdocs: pyproject.toml  # in an environment of its own: the site needs nothing else
	test -x $(SITE)/bin/python || $(PYTHON) -m venv $(SITE)
	$(SITE)/bin/pip install --quiet --constraint constraints.txt $$($(PYTHON) -c 'import tomllib; \
		print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"])')
	touch $@

drawing:  # dependencies of the tests that check the boards with Grafana's schema and components; Node 20
	cd dashboards/render && npm ci --legacy-peer-deps --ignore-scripts --no-fund --no-audit --loglevel=error
	cd dashboards/render && node node_modules/esbuild/install.js

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
