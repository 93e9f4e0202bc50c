# Everything runs in .venv, which the first target that needs it makes from the hashed lock file.
PYTHON ?= python3
BIN := .venv/bin
DISTRIBUTIONS := privacy access proto node_agent gateway client compose
TREES := $(DISTRIBUTIONS) tests bench docs/generate_errors.py docs/generate_dependencies.py tools
FUZZ_SECONDS ?= 60

.PHONY: demo test check types style imports generated audit bench fuzz proto errors dependencies golden lock clean install
install: .venv/installed

.venv/installed: requirements.lock $(DISTRIBUTIONS:%=%/pyproject.toml)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation $(DISTRIBUTIONS:%=-e %)
	touch $@

demo: install
	$(BIN)/python -m insitu_compose.demo

test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

# The parts do not need each other: types are checked on one processor, and all else meanwhile on another.
check: install
	+$(MAKE) --no-print-directory --jobs=2 --output-sync=target types style imports generated audit

types: install
	$(BIN)/mypy $(DISTRIBUTIONS) bench docs/generate_errors.py docs/generate_dependencies.py tools

style: install
	$(BIN)/ruff format --check $(TREES)
	$(BIN)/ruff check $(TREES)

imports: install
	$(BIN)/lint-imports

# What is committed and made from something else.
generated: install
	$(BIN)/python proto/generate.py --check
	$(BIN)/python docs/generate_errors.py --check
	$(BIN)/python docs/generate_dependencies.py --check

# Known vulnerabilities of what is locked, where the data can be had.
audit: install
	$(BIN)/python tools/audit.py

# Long: each parser of what strangers send, guided by coverage. `make fuzz TARGETS="sql-plan grant" FUZZ_SECONDS=600`
fuzz: build/atheris/bin/python
	build/atheris/bin/python -m tests.fuzz.run --seconds $(FUZZ_SECONDS) $(TARGETS)

build/atheris/bin/python: install requirements-fuzz.lock
	$(PYTHON) -m venv build/atheris
	build/atheris/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-fuzz.lock
	echo "import site; site.addsitedir('$$($(BIN)/python -c 'import site; print(site.getsitepackages()[0])')')" \
		> $$(build/atheris/bin/python -c 'import site; print(site.getsitepackages()[0])')/insitu.pth

bench: install
	$(BIN)/python -m bench.run

proto: install
	$(BIN)/python proto/generate.py

errors: install
	$(BIN)/python docs/generate_errors.py

dependencies: install
	$(BIN)/python docs/generate_dependencies.py

golden: install
	$(BIN)/python -m pytest tests/golden --golden-write

lock:
	$(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet pip-tools
	for each in requirements requirements-audit requirements-fuzz; do \
		build/lock/bin/pip-compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --strip-extras \
			--allow-unsafe --output-file $$each.lock $$each.in || exit 1; done

clean:
	rm -rf .venv build bench/.data .mypy_cache .ruff_cache .pytest_cache .hypothesis
