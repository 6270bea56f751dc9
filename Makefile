# Millrace. `make help` explains every target.

SHELL      := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

SERVICES := cdc collect enrich aggregate recommend dashboard admin demo standalone
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  := -s -w -X main.version=$(VERSION)
GO       ?= go
export CGO_ENABLED ?= 0

# Tools are built once from the module proxy into a cache that survives `make clean`.
CACHE       := $(shell if [ "$$(id -u)" = 0 ]; then echo /var/cache/millrace; else echo "$${XDG_CACHE_HOME:-$$HOME/.cache}/millrace"; fi)
LINT_VERSION := v2.15.0
LINT        := $(CACHE)/tools/golangci-lint-$(LINT_VERSION)/golangci-lint
VULN_VERSION := v1.9.0
VULN        := $(CACHE)/tools/govulncheck-$(VULN_VERSION)/govulncheck

##@ Start here

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-zA-Z0-9_-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: bin/standalone ## Build and start everything on this machine with a demo store; prints the addresses (ARGS="--demo-rate 5" adds flags)
	@exec bin/standalone run $(ARGS)

.PHONY: test
test: ## Everyday tests: Go and the embedded parts, under 3 minutes
	$(GO) test ./...

##@ Build and check

.PHONY: build
build: $(addprefix bin/,$(SERVICES)) ## Build every program into bin/

# Go knows best what is up to date, so the programs are always asked for.
.PHONY: FORCE
bin/%: FORCE
	@$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $@ ./services/$*/cmd/$*

.PHONY: lint
lint: $(LINT) ## Check form, arrows between packages and common mistakes
	$(GO) vet ./...
	$(LINT) run ./...
	@sh test/style/check.sh

.PHONY: race
race: ## The everyday tests under the race detector (needs a C compiler)
	CGO_ENABLED=1 $(GO) test -race -short ./pkg/... ./schemas/... ./services/...

.PHONY: vuln
vuln: $(VULN) ## Look for known vulnerabilities (needs the Go vulnerability database)
	$(VULN) ./...

.PHONY: generate
generate: ## Rebuild what is generated from code (docs/config.md)
	$(GO) generate ./...

$(LINT):
	GOBIN=$(dir $@) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)

$(VULN):
	GOBIN=$(dir $@) $(GO) install golang.org/x/vuln/cmd/govulncheck@$(VULN_VERSION)

##@ Whole-system tests

.PHONY: e2e
e2e: build ## End to end on the embedded parts: real input, kill -9, the pages in a browser (about 10 minutes)
	$(GO) test -tags e2e -count=1 -timeout 30m -v ./test/e2e/...
	$(GO) test -tags e2e -count=1 -timeout 10m -v -run InABrowser ./services/demo ./services/dashboard

.PHONY: test-real
test-real: build ## Both real inputs on Apache Kafka and Apicurio (Java and Maven), the starters of those, fail-overs and lost slots of PostgreSQL, and random histories under faults
	$(GO) test -tags real -count=1 -timeout 10m -v ./test/realparts/...
	$(GO) test -tags real -count=1 -timeout 10m -v -run '^(TestStaged|TestTooOld|TestConverge)' ./services/cdc
	MILLRACE_TEST_KAFKA=real $(GO) test -tags e2e -count=1 -timeout 30m -v -run '^(TestClassicModels|TestOnlineRetail)$$' ./test/e2e

.PHONY: interop
interop: build ## What capture writes, read by Debezium's JDBC sink in Kafka Connect and by Confluent's Python client (Java, Maven, Python)
	$(GO) test -tags real -count=1 -timeout 5m -v ./test/interop/...

.PHONY: compose-e2e
compose-e2e: ## Bring docker-compose.yml up, check it, take it down (needs a Docker engine)
	bash test/compose/run.sh

.PHONY: bench
bench: build ## Speed, as ratios to what it is compared with in the same run (BENCH_FLAGS=-short for a quick look)
	$(GO) test -tags bench -count=1 -timeout 30m -v $(BENCH_FLAGS) ./test/bench/...

##@ Containers

.PHONY: compose-up
compose-up: ## Build the image and start docker-compose.yml; then http://localhost:8080
	docker compose up --build --detach --wait

.PHONY: compose-down
compose-down: ## Stop it and remove its volumes
	docker compose down --volumes

.PHONY: clean
clean: ## Remove bin/ (data and cache are left: `bin/standalone reset` removes the data)
	rm -rf bin
