# The front door: `make` sets up .venv and prints what else there is.

ifneq ($(if $(filter Windows_NT,$(OS)),Windows,$(shell uname -s)),Linux)
$(error this needs Linux: use a Linux machine, a container, or WSL on Windows)
endif

SHELL := /bin/sh
EXAMPLE := local-dir:examples/digits
MODEL ?= $(EXAMPLE)
# The shell reads them, between double quotes at most.
QUOTES := " ` \ '
ifneq ($(strip $(foreach each,$(QUOTES),$(findstring $(each),$(MODEL)$(NAME)$(MODEL_STORE)))),)
$(error MODEL, NAME and MODEL_STORE cannot have quotes or backslashes: python -m export and python -m serve take them)
endif
# What the archive is called: the export step decides that.
NAME ?= $(if $(filter $(EXAMPLE),$(MODEL)),digits,$(shell $(firstword $(wildcard $(PYTHON)) python3) export/sources/name.py "$(MODEL)"))
MODEL_STORE ?= model_store
ifneq ($(strip $(foreach each,; & | < > ( ) * ? ! ~ %,$(findstring $(each),$(NAME)$(MODEL_STORE)))),)
$(error NAME (else the end of MODEL) and MODEL_STORE cannot have any of ; & | < > ( ) * ? ! ~ %: letters, digits, dots, dashes and underscores are safe)
endif
ifneq ($(words $(MODEL_STORE)),1)
$(error MODEL_STORE has a space, which make cannot have in the name of a file: python -m export and python -m serve take it)
endif
ARCHIVE := $(NAME:%=$(MODEL_STORE)/%.mar)
VENV := .venv
PYTHON := $(VENV)/bin/python
READY := $(VENV)/ready
REQUIREMENTS := $(addprefix requirements,.txt -dev.txt -search.txt -evaluate.txt -bulk.txt -ray.txt -deploy.txt) constraints.txt

.PHONY: help setup archive serve status predict roll remove stop demo test test-all bench test-ui image test-image bench-gpu search ui lint clean
.DEFAULT_GOAL := help

help: setup
	@echo "make demo                     export, archive, start TorchServe, ask it the sample pictures, stop it"
	@echo "make archive                  build $(ARCHIVE); MODEL=<timm name or local-dir:folder> ARGS='<export options>'"
	@echo "make serve                    start TorchServe and register the archive, or several (NAME=\"one two\"); a running"
	@echo "                              server gets it besides; MODEL, MODEL_STORE, PORT, MANAGEMENT_PORT, METRICS_PORT, GRPC_PORT,"
	@echo "                              GRPC_MANAGEMENT_PORT"
	@echo "make predict IMAGE=<file>     ask the server that make serve has started; several files, a folder, a pattern; NAME"
	@echo "make status                   what is served: models, versions, workers, precision, queue"
	@echo "make roll                     put the archive in the place of the version that is served, under load; PICTURES=<to compare>"
	@echo "make remove NAME=<name>       unregister a model once it has answered all it has; NAME=<name>/<version> one version"
	@echo "make stop                     stop the server that make serve has started"
	@echo "make test                     run the tests, on real TorchServe processes"
	@echo "make test-all                 the same and the large models: minutes more"
	@echo "make test-ui                  install the page of make ui, and test it in Chromium"
	@echo "make image                    an image that serves archives, by buildah: minutes; ARGS='--build-arg …'"
	@echo "make test-image               run that image by podman, and test it"
	@echo "make bench                    compare with other servers, in minutes; MODEL=<timm name or file.mar>, a ViT-B else"
	@echo "make bench-gpu                the same on a GPU, and the model's share of what the GPU can do"
	@echo "make search                   pictures like a picture, by embeddings: the recall on handwritten digits; FOLDER=<to keep them>"
	@echo "make ui                       a page in the browser for the server that make serve has started; UI_PORT, INDEX=<of search>,"
	@echo "                              SAMPLES=<folder of pictures to click>"
	@echo "make lint                     check style and common mistakes"
	@echo "make clean                    remove the environment and the example's archive"

setup: $(READY)

# The first Python that works and is new enough: some shims answer to a name and then fail.
$(READY): $(REQUIREMENTS)
	@for python in python3.12 python3.11 python3; do \
	    if $$python -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; \
	    then break; else python=; fi; \
	done; \
	if [ -z "$$python" ]; then \
	    echo "make: needs Python 3.11 or 3.12 with its venv module (Debian: apt install python3-venv); none is on the PATH" >&2; \
	    exit 1; \
	fi; \
	echo "Installing into $(VENV) with $$($$python --version), once: about 5 GB, most of it PyTorch's CUDA libraries" && \
	$$python -m venv $(VENV) && \
	$(PYTHON) -m pip install --disable-pip-version-check -r requirements.txt -r requirements-dev.txt -c constraints.txt
	@touch $@

EXPORT = $(PYTHON) -m export "$(MODEL)" $(if $(1),--model-name "$(1)") --model-store "$(MODEL_STORE)" $(ARGS)

archive: $(READY)
	@$(if $(filter --model-name% --model-store%,$(ARGS)),$(error NAME and MODEL_STORE say how make names an archive and where it puts it, not ARGS))\
	    $(call EXPORT,$(NAME)) --force
	@echo "next     make serve NAME=$(NAME)$(if $(filter-out model_store,$(MODEL_STORE)), MODEL_STORE=$(MODEL_STORE))"

# An archive of the user's is built if it is not there, and never again: the options that made it are not known here.
$(ARCHIVE): | $(READY)
	@$(if $(filter $(EXAMPLE)/digits,$(MODEL)/$(@F:.mar=)),,$(if $(filter $(EXAMPLE),$(MODEL)), \
	    $(error there is no $@: make archive MODEL=... NAME=$(@F:.mar=) builds it)))$(call EXPORT,$(@F:.mar=)) --force

# The example is built again when what it is made of has changed.
ifeq ($(MODEL),$(EXAMPLE))
$(MODEL_STORE)/digits.mar: $(wildcard handler/*.py handler/*/*.py handler/*/*/*.py export/*.py export/*/*.py examples/digits/config.json examples/digits/model.safetensors)
endif

serve: $(ARCHIVE)
	@$(PYTHON) -m serve start $(NAME) --model-store "$(MODEL_STORE)" \
	    $(if $(PORT),--port $(PORT)) $(if $(MANAGEMENT_PORT),--management-port $(MANAGEMENT_PORT)) \
	    $(if $(METRICS_PORT),--metrics-port $(METRICS_PORT)) $(if $(GRPC_PORT),--grpc-port $(GRPC_PORT)) \
	    $(if $(GRPC_MANAGEMENT_PORT),--grpc-management-port $(GRPC_MANAGEMENT_PORT))

predict: $(READY)
	@$(if $(IMAGE),,$(error IMAGE is not set: make predict IMAGE=picture.jpg))$(PYTHON) -m serve predict "$(IMAGE)" \
	    $(if $(filter file,$(origin NAME)),,--model-name "$(NAME)") $(ARGS)

status: $(READY)
	@$(PYTHON) -m serve status

roll: $(READY)
	@$(PYTHON) -m serve roll "$(NAME)" $(if $(PICTURES),--pictures $(PICTURES)) $(ARGS)

remove: $(READY)
	@$(PYTHON) -m serve remove "$(NAME)" $(ARGS)

stop: $(READY)
	@$(PYTHON) -m serve stop

demo: $(ARCHIVE)
	@$(if $(filter digits,$(NAME)),,$(error make demo shows the digits model; make serve MODEL=$(MODEL) serves yours))\
	    $(PYTHON) -m serve demo digits --model-store "$(MODEL_STORE)"

# Tests of servers in one process, and the other tests beside them: see tests/conftest.py.
PYTEST = $(PYTHON) -m pytest -n 2 --no-loadscope-reorder

test: $(READY)
	@$(PYTEST)

test-all: $(READY)
	@$(PYTEST) -m ""

image:
	@deploy/container/build $(ARGS)

test-image: $(READY)
	@$(PYTHON) -m pytest -m container

# Its peers are installed for it alone, when it is first asked for.
BENCH_READY := $(VENV)/bench-ready
$(BENCH_READY): requirements-bench.txt | $(READY)
	@$(PYTHON) -m pip install --disable-pip-version-check -q -r requirements-bench.txt -c constraints.txt
	@touch $@

BENCH_MODEL = $(if $(filter $(EXAMPLE),$(MODEL)),vit_base_patch16_224,$(MODEL))

bench: $(BENCH_READY)
	@$(PYTHON) -m benchmarks.serving $(BENCH_MODEL) $(ARGS)

bench-gpu: $(BENCH_READY)
	@$(PYTHON) -c 'import sys, torch; torch.cuda.is_available() or sys.exit("make bench-gpu: there is no GPU here")'
	@$(if $(filter %.mar,$(MODEL)),,$(PYTHON) -m benchmarks.bare_gpu --model $(BENCH_MODEL))
	@$(PYTHON) -m benchmarks.serving $(BENCH_MODEL) --batch-size 64 --workers 3 --clients 1,16,64,256 $(ARGS)

search: $(READY)
	@$(PYTHON) -m examples.search demo $(if $(FOLDER),--folder "$(FOLDER)")

# In an environment of its own: Gradio wants an older Pillow than the server's.
UI_VENV := $(VENV)/ui
UI_READY := $(UI_VENV)/ready
$(UI_READY): requirements-ui.txt requirements-search.txt | $(READY)
	@echo "Installing into $(UI_VENV), once: about 450 MB"
	@$(PYTHON) -m venv $(UI_VENV)
	@$(UI_VENV)/bin/python -m pip install --disable-pip-version-check -q -r requirements-ui.txt -r requirements-search.txt \
	    -c constraints.txt
	@touch $@

test-ui: $(UI_READY)
	@$(PYTHON) -m pytest tests/e2e/test_ui.py tests/e2e/test_ui_server.py

ui: $(UI_READY)
	@$(UI_VENV)/bin/python -m ui $(if $(UI_PORT),--port "$(UI_PORT)") $(if $(INDEX),--index "$(INDEX)") \
	    $(if $(SAMPLES),--samples "$(SAMPLES)")

lint: $(READY)
	@$(PYTHON) -m ruff check . && $(PYTHON) -m ruff format --check .

clean:
	@if [ -x $(PYTHON) ]; then $(PYTHON) -m serve stop; fi
	@rm -rf $(VENV) .torchserve .torchserve-demo .ray-serve .pytest_cache .ruff_cache .hypothesis model_store/digits.mar
