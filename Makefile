# The two to know: `make demo` and `make test`. Another Python: make PYTHON=python3.12 demo
PICTURES ?=
PORT ?= 8501
export PYTHON

.PHONY: help install demo test lint audit fuzz screenshots clean

help:            ## this list
	@sed -n 's/^\([a-z]*\): *## /  make \1\t/p' $(MAKEFILE_LIST)

install:         ## .venv with the `seer` command, and nothing else
	@.ci/install

demo:            ## sample pictures (or PICTURES=folder) -> collection -> page (PORT=8501)
	@.ci/install demo
	@.venv/bin/seer demo --port $(PORT) $(if $(PICTURES),"$(patsubst ~/%,$(HOME)/%,$(PICTURES))")

test:            ## everything that .ci/run runs
	@.ci/run

lint:            ## ruff alone
	@.ci/install demo,test
	@.venv/bin/ruff check .

SECONDS_EACH ?= 300
fuzz:            ## the readers of pictures and checkpoints, each for SECONDS_EACH=300 (docs/fuzzing.md)
	@.ci/install demo,test,fuzz
	@.venv/bin/python -m fuzz.pictures $(SECONDS_EACH)
	@.venv/bin/python -m fuzz.checkpoints $(SECONDS_EACH)

audit:           ## are the dependencies as tested, and are weaknesses known? (asks the Python index)
	@.ci/install demo,test
	@.venv/bin/python .ci/audit.py --online

screenshots:     ## the README's picture and five more views of the page, in docs/images
	@.ci/install demo,test
	@.ci/chromium
	@.venv/bin/python -m tests.ui.screenshots docs/images

clean:           ## .venv and what tools leave behind; collections and models stay
	rm -rf .venv build dist *.egg-info .pytest_cache .hypothesis .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
