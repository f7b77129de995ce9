# Two commands matter: `make run` and `make test`. Each sets up everything it needs on a fresh Debian 12.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
HOME_DIR ?= .allod
SUDO   := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

# What the node uses, and what only its tests and benchmarks use.
SYSTEM_RUN  := python3-venv bubblewrap tesseract-ocr tesseract-ocr-osd tesseract-ocr-fra tesseract-ocr-deu \
               tesseract-ocr-spa tesseract-ocr-ita tesseract-ocr-nld tesseract-ocr-por tesseract-ocr-pol \
               tesseract-ocr-ell tesseract-ocr-bul fonts-dejavu-core fonts-liberation fonts-ocr-b
SYSTEM_TEST := postgresql golang-go chromium iproute2
SYSTEM_BENCH := nginx-light wrk

.PHONY: run test bench soak fmt lock clean down system-run system-test system-bench

run: $(VENV)/run.stamp system-run ## Set up, do the main job on real input, leave the node running
	@$(BIN)/python examples/first_receipt.py --home $(HOME_DIR)

down: ## Stop the node that `make run` left running
	@$(BIN)/allod down --home $(HOME_DIR)

test: $(VENV)/dev.stamp system-run system-test ## Lint, types, import contracts, every test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest

bench: $(VENV)/dev.stamp system-run system-bench ## Print the tables that the documentation quotes
	$(BIN)/python bench/all.py

soak: $(VENV)/dev.stamp system-run ## Long runs: memory, file descriptors, crashes
	$(BIN)/python bench/soak_front.py

fmt: $(VENV)/dev.stamp ## Format and fix what can be fixed by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(VENV)/dev.stamp ## Resolve again; nothing younger than a week
	requirements/lock

clean: ## Remove what was built; the node's home stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

# --- set-up -----------------------------------------------------------------------------------------------

$(VENV)/run.stamp: requirements/run.lock pyproject.toml
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV) || { $(SUDO) apt-get update -qq; \
	  $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv; $(PYTHON) -m venv --clear $(VENV); }
	@echo "installing what the node needs (hash-pinned) ..." >&2
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements/run.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/dev.stamp: requirements/dev.lock $(VENV)/run.stamp
	@echo "installing what the tests need (hash-pinned) ..." >&2
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements/dev.lock
	@touch $@

# Installs only what is missing, so that a machine set up once needs neither root nor a network again.
define install
	@missing=$$(for p in $(1); do dpkg-query -W -f='$${db:Status-Status}' $$p 2>/dev/null | grep -qx installed || echo $$p; done); \
	if [ -n "$$missing" ]; then echo "installing" $$missing "..." >&2; \
	  $(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; fi
endef

system-run:
	$(call install,$(SYSTEM_RUN))
system-test:
	$(call install,$(SYSTEM_TEST))
system-bench:
	$(call install,$(SYSTEM_BENCH))
