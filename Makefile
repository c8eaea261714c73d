# One set-up, two commands: `make demo` shows the product, `make test` proves it.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
LIGHT  := $(VENV)/.runtime

# A relative PALATE_DATA means "relative to where make was called"; tests and demo may change folder.
ifdef PALATE_DATA
export PALATE_DATA := $(abspath $(PALATE_DATA))
endif
# Two OpenMP threads on two busy cores can be many times slower than one.
export OMP_NUM_THREADS ?= 1
# Compiled test files and libraries are kept, also where the environment of a container forbids it: the tests start
# hundreds of processes.
unexport PYTHONDONTWRITEBYTECODE
# Processes that share the tests; each has its own torch and about a gigabyte.
TESTERS ?= 2

.PHONY: venv runtime demo test check docs format bench bench-serve reproduce browser services serve slow kills fuzz fuzz-bundles fuzz-serve generality properties mutants matrix soak audit clean help

help:            ## list the targets
	@grep -hE '^[a-z-]+: .*##|^[a-z-]+:  *##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | sort

venv: $(STAMP)   ## .venv with every extra and the tools of development, once

$(STAMP): pyproject.toml constraints.txt scripts/install.py scripts/hashes.txt
	$(PYTHON) scripts/install.py all
	@touch $(LIGHT) $@

runtime: $(LIGHT) ## .venv with the library and its command line alone, once

$(LIGHT): pyproject.toml constraints.txt scripts/install.py scripts/hashes.txt
	$(PYTHON) scripts/install.py runtime
	@touch $@

demo: runtime    ## MovieLens 100K, four models, one table, recommendations: a minute, and one of set-up once
	$(BIN)/palate demo

check: venv      ## format, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The checks take one core for a minute while the tests begin; what they say stands at the end.
test: venv       ## set-up, then checks and the whole test suite side by side
	@$(MAKE) --no-print-directory check > $(VENV)/check.log 2>&1 & checks=$$!; \
	$(BIN)/python -m pytest -rs -n $(TESTERS) --dist worksteal; tests=$$?; \
	wait $$checks; checked=$$?; cat $(VENV)/check.log; exit $$((tests | checked))

docs: venv       ## the documentation as a site in site/, strictly: a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir site
	PALATE_SITE=site $(BIN)/python -m pytest -q tests/test_docs.py -k site_has_all_public_names

browser:         ## install Debian's Chromium for the tests that look at the report's page (needs root)
	@command -v chromium >/dev/null || (apt-get update -qq && apt-get install -qq -y chromium)

services:        ## install PostgreSQL, nginx and Debian's Chromium for the tests that need them (needs root)
	@missing="$$(command -v nginx >/dev/null || echo nginx-light; command -v chromium >/dev/null || echo chromium; \
	  ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || echo postgresql)"; \
	[ -z "$$missing" ] || (apt-get update -qq && apt-get install -qq -y $$missing)

serve: venv      ## the page and the API on http://127.0.0.1:8000, with the demo's bundle
	@test -d bundles/demo || $(BIN)/palate demo --out bundles/demo
	$(BIN)/palate serve bundles/demo

slow: venv       ## the tests that `make test` leaves out because each takes ten seconds or more
	PALATE_SLOW=1 $(BIN)/python -m pytest -rs -m slow

kills: venv      ## kill a server under load 25 times on SQLite and on PostgreSQL: no acknowledged event may be lost
	PALATE_KILLS=25 $(BIN)/python -m pytest -rs tests/serve/test_durability.py

fuzz: venv       ## 20,000 random files and dataframes: a data set or an error of one line, no row lost in silence
	PYTHONPATH=tests $(BIN)/python tests/data/fuzz.py 20000

generality: venv ## presets on all generated worlds, the recipes that take seconds for each included
	PALATE_GENERALITY=1 $(BIN)/python -m pytest tests/generality

fuzz-bundles: venv ## 20,000 changes of bundles under right digests: refused in one line, or a bundle that answers
	PYTHONPATH=tests $(BIN)/python tests/bundle_fuzz.py 20000

matrix: venv     ## tests of the core on Python 3.11 to 3.14 with the newest and the oldest libraries, and the wheel by uvx and pipx
	$(PYTHON) scripts/matrix.py $(ROWS)

soak: venv       ## train, batch, tune, compare and serve under kill -9, a full disk and double starts for MINUTES=10
	$(BIN)/python benchmarks/soak.py $(or $(MINUTES),10)

audit:           ## known vulnerabilities of the pinned packages, by pip-audit in an environment of its own (asks the network)
	@test -x .audit/bin/pip-audit || { $(PYTHON) -m venv .audit && .audit/bin/python -m pip install --quiet pip-audit; } || \
		{ rm -rf .audit; echo "make audit: pip-audit cannot be installed: it needs a network" >&2; exit 2; }
	@.audit/bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off -r constraints.txt || \
		{ echo "make audit: there are vulnerabilities, or the advisories could not be asked (see above): it needs a network" >&2; exit 1; }

properties: venv ## the property tests with new random examples, where `make test` repeats the same ones
	PALATE_RANDOM=1 $(BIN)/python -m pytest -m hypothesis -n $(TESTERS)

fuzz-serve: venv ## thousands of requests made from the description of the API: no 5xx, no answer it does not describe
	PALATE_FUZZ=100 $(BIN)/python -m pytest -rs --timeout 3600 tests/serve/test_description.py

mutants: venv    ## change the code of figures and lists a little, thousands of times (hours): tests that do not notice are listed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --target .mutmut mutmut==3.8.1
	PYTHONPATH=.mutmut $(BIN)/python -m mutmut run --max-children $(TESTERS) $(MUTANTS)
	PYTHONPATH=.mutmut $(BIN)/python -m mutmut results

reproduce: venv  ## every published table again (hours): rows in runs/reproduce.json, for docs/make_reproductions.py
	@mkdir -p runs
	$(BIN)/palate reproduce --json runs/reproduce.json --markdown runs/reproduce.md

bench: venv      ## speed against peers and physical limits, medians and ratios
	$(BIN)/python benchmarks/train_throughput.py
	$(BIN)/python benchmarks/negatives.py
	POLARS_MAX_THREADS=1 $(BIN)/python benchmarks/read_csv.py
	$(BIN)/python benchmarks/full_ranking.py
	$(BIN)/python benchmarks/metrics.py
	$(BIN)/python benchmarks/bootstrap.py
	$(BIN)/python benchmarks/sasrec_tokens.py
	$(BIN)/python benchmarks/two_tower_step.py
	$(BIN)/python benchmarks/fold_in.py
	$(BIN)/python benchmarks/index.py --kinds ivf
	$(BIN)/python benchmarks/batch.py

bench-serve: venv ## a real server under load: latency, throughput beside a bare route, durable events, memory
	$(BIN)/python benchmarks/serve.py
	$(BIN)/python benchmarks/serve_models.py

format: venv     ## rewrite the code in the house style
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:           ## remove the virtual environment and caches
	rm -rf $(VENV) .audit .matrix .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build site
