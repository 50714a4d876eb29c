# Two commands for a newcomer: `make quickstart` and `make test`. Both set up a virtual environment first.

PYTHON ?= python3
VENV ?= .venv
DOCS_VENV ?= .venv-docs
# Compilers for TPUs and GPUs: a folder beside the environment, so that no other test can load them.
COMPILERS ?= .compilers
COMPILED ?= compile
RUN := $(VENV)/bin/python
QUICKSTART_DIR ?= runs/quickstart
QUICKSTART_FLAGS ?=
# Processes that share the tests, a file at a time; each takes up to 3 GB.
TEST_PROCESSES ?= 2

.PHONY: quickstart test compilers test-compile test-slow notebooks lint setup docs

setup: $(VENV)/.installed

$(VENV)/.installed: requirements.txt
$(DOCS_VENV)/.installed: docs/requirements.txt
$(VENV)/.installed $(DOCS_VENV)/.installed:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check -r $<
	touch $@

# Train a small network on photographs, compare it with bicubic on others, draw pictures.
quickstart: setup
	$(RUN) train.py --config=configs/quickstart.py --workdir=$(QUICKSTART_DIR) $(QUICKSTART_FLAGS)
	$(RUN) eval.py --config=configs/quickstart.py --checkpoint=$(QUICKSTART_DIR) --baselines=bicubic \
		--output=$(QUICKSTART_DIR) --pictures=2 --report $(QUICKSTART_FLAGS)

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright --pythonpath $(VENV)/bin/python

test: lint
	$(RUN) -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder -m 'not slow'

$(COMPILERS)/.installed: tests/planning/requirements.txt $(VENV)/.installed
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(@D) -r $<
	touch $@

compilers: $(COMPILERS)/.installed

# Programs for TPUs and GPUs that are not there; `COMPILED='compile and not long'`: the quick ones.
test-compile: compilers
	PYTHONPATH=$(abspath $(COMPILERS)) $(RUN) -m pytest -n $(TEST_PROCESSES) --dist loadgroup -m '$(COMPILED)' tests/ops tests/planning

# The cells of the notebooks in examples/, one after another.
notebooks: setup
	$(RUN) -m pytest tests/documentation/test_notebooks.py

# Huge images, wheels in environments of their own, and all that test-compile runs: minutes each.
test-slow: setup test-compile
	$(RUN) -m pytest -m 'slow and not compile'

# The documentation as a site, build/site/index.html, in an environment of its own. A warning is an error.
docs: $(DOCS_VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build
