# Everything runs in .venv, which the first target that needs it makes from the hashed lock file.
PYTHON ?= python3
BIN := .venv/bin
DISTRIBUTIONS := privacy access proto node_agent gateway client compose
TREES := $(DISTRIBUTIONS) tests bench docs/generate_errors.py

.PHONY: demo test check bench proto errors golden lock clean install
install: .venv/installed

.venv/installed: requirements.lock $(DISTRIBUTIONS:%=%/pyproject.toml)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation $(DISTRIBUTIONS:%=-e %)
	touch $@

demo: install
	$(BIN)/python -m insitu_compose.demo

test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: install
	$(BIN)/ruff format --check $(TREES)
	$(BIN)/ruff check $(TREES)
	$(BIN)/mypy $(DISTRIBUTIONS) bench docs/generate_errors.py
	$(BIN)/lint-imports
	$(BIN)/python proto/generate.py --check
	$(BIN)/python docs/generate_errors.py --check

bench: install
	$(BIN)/python -m bench.run

proto: install
	$(BIN)/python proto/generate.py

errors: install
	$(BIN)/python docs/generate_errors.py

golden: install
	$(BIN)/python -m pytest tests/golden --golden-write

lock:
	$(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet pip-tools
	build/lock/bin/pip-compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --strip-extras \
		--allow-unsafe --output-file requirements.lock requirements.in

clean:
	rm -rf .venv build bench/.data .mypy_cache .ruff_cache .pytest_cache .hypothesis
