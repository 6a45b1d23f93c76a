# Each target creates .venv and installs what it needs on first use.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
INSTALLED = $(VENV)/.installed
TYPED = build/typecheck

.PHONY: run test quick browser check format clean

$(INSTALLED): setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --editable '.[all,test]'
	touch $@

# A trained network classifies two photographs and leaves in three formats, each one verified.
run: $(INSTALLED)
	$(BIN)/python examples/demo.py --out build/run

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --nbmake tests notebooks

quick: $(INSTALLED)
	$(BIN)/python -m pytest -m 'not slow'

# What the tests of `bundle web` and `bundle android` need besides Chromium and Java; they are skipped without.
browser:
	npm install --silent --no-save --prefix build puppeteer-core @litertjs/core@2.5.3 @litertjs/wasm-utils@2.5.3 kotlin-compiler

# mypy and import-linter cannot follow the mapping of export/ to keras_effnet.export: they get a tree without.
check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf $(TYPED) && mkdir -p $(TYPED)
	cp -r keras_effnet $(TYPED)/keras_effnet && cp -r export $(TYPED)/keras_effnet/export
	$(BIN)/mypy $(TYPED)/keras_effnet
	cd $(TYPED) && $(abspath $(BIN))/lint-imports $(CURDIR)/pyproject.toml --no-cache

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf build dist *.egg-info
