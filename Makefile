# The commands of this project; `make help` lists them. Each makes the environment that it needs.

PYTHON ?= python3
VENV ?= .venv
PROFILE ?= embedded

BIN := $(VENV)/bin
# What pip installs, and where to, is said here. Of the user's variables it gets those about the
# package index and the way to it; of the user's pip.conf too (see PIP_UNSET).
PIP := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check \
  --no-user --target= --root=/
PIP_KEPT := PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_NO_INDEX PIP_FIND_LINKS PIP_TRUSTED_HOST \
  PIP_CERT PIP_CLIENT_CERT PIP_PROXY PIP_TIMEOUT PIP_DEFAULT_TIMEOUT PIP_RETRIES \
  PIP_KEYRING_PROVIDER PIP_CONFIG_FILE PIP_CACHE_DIR PIP_NO_CACHE_DIR PIP_NO_INPUT
# Set to nothing in the pip.conf of the environment, which comes before the user's.
PIP_UNSET := user target prefix root python dry-run report requirement editable constraint \
  require-hashes no-deps no-binary only-binary ignore-installed no-build-isolation src
$(foreach name,$(filter-out $(PIP_KEPT),$(filter PIP_%,$(.VARIABLES))),$(eval unexport $(name)))
PACKAGES := manage.py atp atp_site registry messaging examples tests $(wildcard benchmarks)

.DEFAULT_GOAL := help
.PHONY: help run run-production demo test lint format bench crash soak

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/.runtime ## serve the hub on 127.0.0.1 (ATP_PORT, ATP_DATA_DIR); Ctrl-C stops it
	@exec $(BIN)/python manage.py hub

demo: $(VENV)/.runtime ## a story on the running hub, each agent a process; starts a hub if none runs
	@exec $(BIN)/python -m examples.story

test: $(VENV)/.develop ## all tests; TESTS="tests/site -k lock" runs some
	@exec $(BIN)/python -m pytest $(TESTS)

lint: $(VENV)/.develop ## what must hold before a commit: ruff, formatting, types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy $(PACKAGES)

format: $(VENV)/.develop ## put the code into shape
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

run-production: $(VENV)/.runtime ## two nodes, two workers, beat on PostgreSQL, Redis and a broker
	@exec $(BIN)/python manage.py production

bench: $(VENV)/.develop ## measure; ONLY=hub.oneway for one figure, ONLY=help lists them, PROFILE=production
	@ONLY="$(ONLY)" ALL="$(ALL)" PROFILE="$(PROFILE)" exec $(BIN)/python -m benchmarks

crash: $(VENV)/.develop ## kill everything at random for 10 minutes (ATP_CRASH_SECONDS, ATP_CRASH_SEED)
	@$(BIN)/python -m tests.crash
	@ATP_CRASH_REQUESTS=10000 ATP_CRASH_KILLS=5 exec $(BIN)/python -m pytest -q tests/crash/test_kill_the_hub.py

soak: $(VENV)/.develop ## an hour at half load (ATP_SOAK_SECONDS): memory, latency, nothing lost
	@exec $(BIN)/python -m tests.crash.soak

# --- The environment, made once and again when what it is made from changes -------------------

$(VENV)/.python:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "There is no $(PYTHON) here: install Python 3.11 or newer, or name one as PYTHON=..." >&2; \
	  exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "This needs Python 3.11 or newer, and $(PYTHON) is older: name another as PYTHON=..." >&2; \
	  exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@for part in global install; do \
	  echo "[$$part]"; for name in $(PIP_UNSET); do echo "$$name ="; done; done > $(VENV)/pip.conf
	@touch $@

$(VENV)/.runtime: requirements.txt pyproject.toml $(VENV)/.python
	@echo "Installing what the hub needs into $(VENV) ..."
	@$(PIP) -r requirements.txt
	@$(PIP) --no-deps --editable .
	@touch $@

$(VENV)/.develop: requirements-dev.txt $(VENV)/.runtime
	@echo "Installing what the tests need into $(VENV) ..."
	@$(PIP) -r requirements-dev.txt
	@touch $@
