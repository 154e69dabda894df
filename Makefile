# The commands of the project; the same in CI and in CONTRIBUTING. `make help` lists them.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
LOCK   := requirements/dev.txt

.DEFAULT_GOAL := help
.PHONY: help setup demo run test check format bench lock clean

help:
	@echo "make setup   virtual environment in .venv (quick when nothing changed)"
	@echo "make demo    a real call through a real Asterisk to an emulated AI; PROVIDER=gemini or openai-live takes"
	@echo "             another one, KEEP=1 leaves it up for a softphone"
	@echo "make run     the service, with the settings of .env"
	@echo "make test    checks and all tests"
	@echo "make check   ruff and mypy only"
	@echo "make bench   the benchmark"

setup: $(STAMP)

# --no-deps: the lock is the whole list. pip's resolver would look for newer releases of what is asked for with
# an extra, and refuse the lock on the day one comes out.
$(STAMP): $(LOCK) pyproject.toml src/arivox/__init__.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Arivox needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Set PYTHON=python3.x" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "$(PYTHON) has no venv module: apt install python3-venv" >&2; exit 1; }
	@echo "Setting up $(VENV) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $(LOCK)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup
	@$(BIN)/arivox demo $(if $(KEEP),--keep) $(if $(PROVIDER),--provider $(PROVIDER))

run: setup
	@$(BIN)/arivox run

check: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: setup
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# Calls wait more than they work: the other tests run beside them, with UDP ports of their own.
test: check
	@log=$$(mktemp); trap 'kill $$others 2>/dev/null; rm -f $$log' EXIT; \
	echo "Placing calls, with the other tests beside them ..."; \
	ARIVOX_TESTING_UDP_PORTS=10000-14999 $(BIN)/pytest --ignore tests/integration >$$log 2>&1 & others=$$!; \
	$(BIN)/pytest tests/integration; calls=$$?; \
	wait $$others; status=$$?; cat $$log; \
	exit $$((calls ? calls : status))

bench: setup
	@$(BIN)/python -m bench

# Rewrites the lock from pyproject.toml. No registry address ends up in it.
lock:
	@$(PYTHON) -m uv pip compile pyproject.toml --group dev --extra speech --extra redis --extra vertex --extra diagram --universal \
	  --python-version 3.11 --generate-hashes --no-strip-extras --no-emit-index-url --no-emit-find-links --no-header -q -o $(LOCK)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache demo-output bench-output
