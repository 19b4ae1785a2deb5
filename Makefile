# Everything here needs Go, make, bash and git: tools are Go modules that
# hack/tools pins, and the control plane of the tests is built from source.

SHELL := /usr/bin/env bash -o pipefail
.SHELLFLAGS := -ec
.DEFAULT_GOAL := help

GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo v0.0.0-dev)
IMG ?= ghcr.io/image-source/image-source-controller:$(VERSION)

# Arguments for go test, such as GO_TEST_ARGS='-run TestOptIn -v'.
GO_TEST_ARGS ?=
# Packages that go test runs.
PKG ?= ./...
# Packages of make race: what runs in the controller's process.
RACE_PKG ?= ./controllers ./pkg/...
# How long go test may take for one package; the end-to-end tests are the longest.
TEST_TIMEOUT ?= 30m
# Arguments for make bench, such as BENCH_ARGS='-full -update-docs' or BENCH_ARGS='-base main'.
BENCH_ARGS ?=
# Packages of make bench-parts, and how often each benchmark runs; benchstat wants six.
BENCH_PKG ?= ./controllers ./pkg/...
BENCH_COUNT ?= 6
# How long each fuzz target runs.
FUZZTIME ?= 30s
# How many seeds make faults tries, and the first of them.
SEEDS ?= 1
SEED ?= 1
# 1 leaves the demo running.
KEEP ?=
# Further flags for make run.
RUN_ARGS ?=

# Relative: the path to this repository may have spaces.
BIN := bin
TOOLS := $(BIN)/tools
CONTROLLER_GEN := $(TOOLS)/controller-gen
CRD_REF_DOCS := $(TOOLS)/crd-ref-docs
GOLANGCI_LINT := $(TOOLS)/golangci-lint
BENCHSTAT := $(TOOLS)/benchstat
CONTROLPLANE := $(GO) run ./test/controlplane/cmd/controlplane
GOFMT = $(shell $(GO) env GOROOT)/bin/gofmt
GO_FILES := $(wildcard *.go api cmd controllers pkg test)

##@ General

.PHONY: help
help: ## Show this list.
	@awk 'BEGIN {FS = ":.*##"; printf "Usage: make \033[36m<target>\033[0m\n"} \
		/^[a-zA-Z0-9_-]+:.*?##/ {printf "  \033[36m%-18s\033[0m %s\n", $$1, $$2} \
		/^##@/ {printf "\n\033[1m%s\033[0m\n", substr($$0, 5)}' $(MAKEFILE_LIST)

.PHONY: clean
clean: ## Remove what was built. The Go build cache stays.
	rm -rf $(BIN)

##@ Try it

# What runs for long is built and takes the place of its shell: go run passes no
# signal on but that of Ctrl-C, and what it started would outlive it.
.PHONY: demo
demo: ## Show the main job on a control plane of its own. KEEP=1 leaves it running.
	$(GO) build -o $(BIN)/demo ./test/demo
	exec $(BIN)/demo $(if $(filter-out 0,$(KEEP)),-keep)

.PHONY: run
run: build ## Run the controller against the current kubeconfig, with its storage in bin/data.
	@mkdir -p $(BIN)/data
	RUNTIME_NAMESPACE=flux-system exec $(BIN)/image-source-controller \
		--storage-path=$(BIN)/data --storage-addr=127.0.0.1:9090 --storage-adv-addr=127.0.0.1:9090 \
		--log-encoding=console $(RUN_ARGS)

##@ Build

.PHONY: build
build: ## Build bin/image-source-controller.
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o $(BIN)/image-source-controller .

.PHONY: build-cli
build-cli: ## Build bin/flux-bundle, the command line tool and plugin of the Flux CLI.
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o $(BIN)/flux-bundle ./cmd/flux-bundle

# Where the Flux CLI looks for plugins.
FLUXCD_PLUGINS ?= $(HOME)/.fluxcd/plugins

.PHONY: install-cli
install-cli: build-cli ## Install bin/flux-bundle as a plugin of the Flux CLI: flux bundle.
	mkdir -p "$(FLUXCD_PLUGINS)"
	install -m 0755 $(BIN)/flux-bundle "$(FLUXCD_PLUGINS)/flux-bundle"

.PHONY: release-cli
release-cli: ## Build the archives and the plugin manifest of flux-bundle for RELEASE, such as 0.1.0, into bin/release.
	hack/release-cli.sh $(RELEASE)

.PHONY: docker-build
docker-build: ## Build the container image IMG. Needs Docker with BuildKit.
	docker build --build-arg VERSION=$(VERSION) --tag $(IMG) .

##@ Test

.PHONY: test
test: fmt-check vet verify-generated controlplane ## Run all tests and checks of CI but the linters, which are make lint.
	$(GO) test $(PKG) -timeout $(TEST_TIMEOUT) $(GO_TEST_ARGS)

# Programs that tests of make interop need beyond the control plane. Without them,
# make test leaves these tests out.
INTEROP_PROGRAMS := notification-controller

.PHONY: interop
interop: controlplane ## Run the tests beside programs that make test does not build. The first run builds them.
	$(CONTROLPLANE) build -programs $(INTEROP_PROGRAMS)
	@tests="$$(sed -n 's/^func \(Test[A-Za-z0-9_]*\)(.*/\1/p' test/e2e/interop*_test.go | paste -sd '|' -)"; \
	$(GO) test ./test/e2e -count=1 -run "^($$tests)$$" -timeout $(TEST_TIMEOUT) $(GO_TEST_ARGS)

.PHONY: faults
faults: controlplane ## Run the fault tests with SEEDS seeds, from SEED on. A failure prints its seed.
	@tests="$$(sed -n 's/^func \(Test[A-Za-z0-9_]*\)(.*/\1/p' test/e2e/faults_*_test.go | paste -sd '|' -)"; \
	for ((seed = $(SEED); seed < $(SEED) + $(SEEDS); seed++)); do \
		echo "fault tests, seed $$seed"; \
		FAULTS_SEED=$$seed $(GO) test ./test/e2e -count=1 -run "^($$tests)$$" -timeout $(TEST_TIMEOUT) $(GO_TEST_ARGS); \
	done

.PHONY: race
race: ## Run the tests of RACE_PKG with the race detector. Needs a C compiler.
	$(GO) test -race $(RACE_PKG) -timeout $(TEST_TIMEOUT) $(GO_TEST_ARGS)

.PHONY: controlplane
controlplane: ## Build the programs of the local control plane into bin/controlplane.
	$(CONTROLPLANE) build

.PHONY: fmt-check
fmt-check: ## Fail on Go files that gofmt would change.
	@unformatted="$$($(GOFMT) -l $(GO_FILES))"; \
	if [[ -n "$$unformatted" ]]; then \
		echo "not formatted, run make fmt:"; echo "$$unformatted"; exit 1; \
	fi

.PHONY: vet
vet: ## Run go vet.
	$(GO) vet ./...

.PHONY: lint
lint: $(GOLANGCI_LINT) ## Run golangci-lint. Its first build takes some minutes.
	$(GOLANGCI_LINT) run $(PKG)

.PHONY: tokens
tokens: ## Print the size of the packages of the controller and of the command line.
	@$(GO) list -deps -json . | $(GO) run ./hack/tokens
	@$(GO) list -deps -json ./cmd/flux-bundle | $(GO) run ./hack/tokens

.PHONY: bench
bench: controlplane $(BENCHSTAT) ## Measure this controller beside source-controller, or beside another build of it with BENCH_ARGS='-base main'.
	$(GO) build -o $(BIN)/benchmark ./test/bench
	exec $(BIN)/benchmark $(BENCH_ARGS)

.PHONY: bench-parts
bench-parts: $(BENCHSTAT) ## Run the Go benchmarks of the pipeline's parts and compare them with the baseline, if there is one.
	@mkdir -p $(BIN)/bench
	$(GO) test $(BENCH_PKG) -run '^$$' -bench . -benchmem -count $(BENCH_COUNT) | tee $(BIN)/bench/parts.txt
	@if [[ -f $(BIN)/bench/baseline.txt ]]; then \
		$(BENCHSTAT) baseline=$(BIN)/bench/baseline.txt now=$(BIN)/bench/parts.txt; \
	else \
		echo "there is no baseline to compare with: make bench-baseline keeps this run as one"; \
	fi

.PHONY: bench-baseline
bench-baseline: ## Keep the last run of make bench-parts as the baseline of the next.
	cp $(BIN)/bench/parts.txt $(BIN)/bench/baseline.txt

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME.
	@hack/fuzz.sh $(FUZZTIME)

##@ Generate

.PHONY: fmt
fmt: ## Format all Go files.
	$(GOFMT) -w $(GO_FILES)

.PHONY: generate
generate: $(CONTROLLER_GEN) ## Generate the deep-copy functions of the API types.
	$(CONTROLLER_GEN) object:headerFile=hack/boilerplate.go.txt paths=./api/...

.PHONY: manifests
manifests: $(CONTROLLER_GEN) ## Generate the CustomResourceDefinitions.
	$(CONTROLLER_GEN) crd paths=./api/... output:crd:artifacts:config=config/crd/bases
	$(GO) run ./hack/crd-limits config/crd/bases

.PHONY: docs
docs: api-docs cli-docs ## Generate all generated documentation.

.PHONY: cli-docs
cli-docs: ## Generate the reference of the command line, docs/cli.
	@mkdir -p docs/cli
	$(GO) run ./cmd/flux-bundle docs docs/cli

.PHONY: api-docs
api-docs: $(CRD_REF_DOCS) ## Generate the API reference, docs/reference/api.md.
	$(CRD_REF_DOCS) --source-path=api --config=hack/api-docs/config.yaml --templates-dir=hack/api-docs/templates \
		--renderer=markdown --output-path=docs/reference/api.md --log-level=WARN

.PHONY: verify-generated
verify-generated: ## Fail if a generated file differs from what its source generates.
	@hack/verify-generated.sh

.PHONY: verify
verify: generate manifests docs ## Regenerate everything and fail on a dirty tree.
	@dirty="$$(git status --porcelain)"; \
	if [[ -n "$$dirty" ]]; then \
		echo "the tree is dirty, commit these files or undo the changes:"; echo "$$dirty"; git --no-pager diff; exit 1; \
	fi

##@ Tools

.PHONY: tools
tools: $(CONTROLLER_GEN) $(CRD_REF_DOCS) $(GOLANGCI_LINT) $(BENCHSTAT) ## Build all tools that hack/tools pins into bin/tools.

$(CONTROLLER_GEN): TOOL = sigs.k8s.io/controller-tools/cmd/controller-gen
$(CRD_REF_DOCS): TOOL = github.com/elastic/crd-ref-docs
$(GOLANGCI_LINT): TOOL = github.com/golangci/golangci-lint/v2/cmd/golangci-lint
$(BENCHSTAT): TOOL = golang.org/x/perf/cmd/benchstat

$(CONTROLLER_GEN) $(CRD_REF_DOCS) $(GOLANGCI_LINT) $(BENCHSTAT): hack/tools/go.mod hack/tools/go.sum
	@echo "building $(@F) (once)"
	@$(GO) -C hack/tools build -o "$(CURDIR)/$@" $(TOOL)
