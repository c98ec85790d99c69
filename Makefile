# The two to know: `make demo` and `make test`. Another Python: make PYTHON=python3.12 demo
PICTURES ?=
export PYTHON

.PHONY: help install demo test lint screenshots clean

help:            ## this list
	@sed -n 's/^\([a-z]*\): *## /  make \1\t/p' $(MAKEFILE_LIST)

install:         ## .venv with the `seer` command, and nothing else
	@.ci/install

demo:            ## sample pictures (or PICTURES=folder) -> collection -> page
	@.ci/install demo
	@.venv/bin/seer demo $(if $(PICTURES),"$(patsubst ~/%,$(HOME)/%,$(PICTURES))")

test:            ## everything that .ci/run runs
	@.ci/run

lint:            ## ruff alone
	@.ci/install demo,test
	@.venv/bin/ruff check .

screenshots:     ## the README's pictures, taken anew by the browser test
	@.ci/install demo,test
	@.ci/chromium
	@SEER_SCREENSHOTS=docs/screenshots .venv/bin/python -m pytest -m browser

clean:           ## .venv and what tools leave behind; collections and models stay
	rm -rf .venv build dist *.egg-info .pytest_cache .hypothesis .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
