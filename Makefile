# One target a chore. A fresh clone needs nothing first: `make demo` and `make test` set up what
# they use in .venv, from hash-locked requirements, and only again when pyproject.toml or a lock
# has changed.
#
#   make test PYTHON=python3.12      another interpreter, 3.11 or newer
#   make demo ARGS="--json"          arguments for the command behind a target

PYTHON ?= python3
ARGS ?=

BIN := .venv/bin
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-header --no-emit-index-url --no-emit-find-links

# Stamps are worth what .venv is: without it they go.
$(shell test -x $(BIN)/python || rm -rf .make)

.PHONY: help demo test check bench matrix soak lock clean system
.DELETE_ON_ERROR:
.NOTPARALLEL:

help: ## list the targets
	@sed -n 's/^\([a-z]*\):[^#]*## /\1	/p' Makefile | expand -t 10

demo: .make/demo system ## a caller talks with the agent: no key, no network
	$(BIN)/trunkline demo $(ARGS)

# What runs in real time, calls and deadlines, mostly waits; it does so away from what computes.
REAL_TIME := tests/e2e tests/matrix tests/soak

# What failed is judged again by itself: on a busy machine a deadline passes that nobody broke.
AGAIN := $(BIN)/pytest --last-failed --last-failed-no-failures=none

# LiveKit's server takes minutes to build, the first time; that goes on behind the first tests.
test: .make/dev system ## every test but the long runs
	@scripts/clients start
	$(BIN)/pytest -n 2 --dist loadfile $(addprefix --ignore=,$(REAL_TIME)) $(ARGS) || $(AGAIN)
	@scripts/clients wait
	$(BIN)/pytest -n 2 --dist loadfile $(REAL_TIME) $(ARGS) || $(AGAIN)

check: .make/dev ## lint, format, types, architecture
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -q tests/unit/test_architecture.py

bench: .make/dev system ## side-by-side measurements; ARGS names some of them
	$(BIN)/python -m bench $(ARGS)

matrix: .make/dev system ## every fault in every situation, beside LiveKit's adapters (25 min)
	$(BIN)/python -m tests.matrix $(ARGS)

soak: .make/dev system ## the long runs that `make test` leaves out
	$(BIN)/pytest -m soak $(ARGS)

lock: .make/setup ## regenerate requirements/; ARGS=--upgrade takes newer versions
	$(LOCK) --group setup -o requirements/setup.txt $(ARGS)
	$(LOCK) pyproject.toml --extra demo -o requirements/demo.txt $(ARGS)
	$(LOCK) pyproject.toml --all-extras --group dev -c requirements/demo.txt \
		-o requirements/dev.txt $(ARGS)
	$(LOCK) --group older -o requirements/older.txt $(ARGS)
	$(LOCK) --group pipecat -o requirements/pipecat.txt $(ARGS)

clean: ## remove what runs leave behind; .venv stays
	rm -rf .make .mypy_cache .pytest_cache .ruff_cache .hypothesis demo-out dist
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

system:
	@scripts/system-packages

.make/setup: requirements/setup.txt scripts/setup
	@PYTHON="$(PYTHON)" scripts/setup tools
	@mkdir -p .make && touch $@

.make/demo .make/dev: .make/%: requirements/%.txt pyproject.toml .make/setup
	@scripts/setup $*
	@touch $@
