# Everything runs with Go, make and git; the tests on Apache Kafka want Java 17
# and Maven too and are skipped without them. make help lists the targets.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Packages to test, vet and lint, as in make test PKGS=./consumer/...
PKGS ?= ./...
# Further arguments of go test, as in make test TESTARGS='-run TestRevoke -v'
TESTARGS ?=
# Test binaries at a time. Each may run a broker of its own: 2 suits 2 cores and 4 GB.
PARALLEL ?= 2
# What make prose looks at; empty is everything
FILES ?=
# How long each fuzz target runs: 10s for a change, 1m for a night.
FUZZTIME ?= 10s
# How long faults go on in make chaos
DURATION ?= 2m
# What decides the faults of make chaos; 0 takes a seed at random and says it
SEED ?= 0
# How many random schedules make virtual runs; an eighth of them with the race detector.
SCHEDULES ?= 400
# Which Go benchmarks run, as in make microbench BENCH=Map
BENCH ?= .
# What bridge version prints.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

LDFLAGS := -s -w -X main.release=$(VERSION)
LINT := go tool -modfile=tools/go.mod golangci-lint

# The tests of the Helm chart, of alerts and dashboard, and the release have
# dependencies that are not the bridge's, so they are modules of their own, tested
# and linted with ./... only.
MODULES := $(if $(filter ./...,$(PKGS)),deploy/charttest deploy/observetest deploy/release)

# The packages whose tests wait longest begin first: at the end they would wait
# alone. go test runs each package once, however often it is named.
LONGEST := $(if $(filter ./...,$(PKGS)),./test/e2e ./consumer ./test/scale)

.PHONY: help
help: ## List the targets and their settings
	@echo "Targets:"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "Settings, as in make test PKGS=./consumer/... :"
	@awk '/^# / { said = substr($$0, 3) } /^[A-Z]+ \?=/ { printf "  %-9s %s\n", $$1, said }' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build bin/bridge, static
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/bridge ./cmd/bridge

.PHONY: test
test: vet ## Vet, then run every test with the race detector, on Apache Kafka too
	@tools/chromium.sh || [ "$${REQUIRE_CHROMIUM:-}" != 1 ]
	@counts=$$(mktemp); trap 'rm -f "$$counts"' EXIT; status=0; \
	for module in $(MODULES); do go -C $$module test -count=1 -timeout 30m ./... || status=$$?; done; \
	KAFKATEST_COUNT_FILE=$$counts go test -race -count=1 -timeout 40m -p $(PARALLEL) $(TESTARGS) $(LONGEST) $(PKGS) || status=$$?; \
	if [ -s "$$counts" ]; then \
		awk '{ n++; v = $$1 } END { printf "%d tests ran on Apache Kafka %s\n", n, v }' "$$counts"; \
	else \
		echo "0 tests ran on Apache Kafka"; \
	fi; \
	exit $$status

.PHONY: short
short: ## Run the tests without the race detector and without Apache Kafka
	go test -short -timeout 20m -p $(PARALLEL) $(TESTARGS) $(PKGS)

.PHONY: year-on
year-on: ## Run the tests as they will run a year from now; see tools/another-day.sh
	go mod download
	tools/another-day.sh 365 go test -count=1 -timeout 30m -p $(PARALLEL) $(TESTARGS) $(PKGS)

.PHONY: vet
vet: ## Run go vet
	go vet $(PKGS)
	@for module in $(MODULES); do go -C $$module vet ./...; done

.PHONY: lint
lint: ## Run the linters of .golangci.yml, check the formatting, and look for merge conflict markers
	@if git grep -nE '^(<{7}|>{7}|\|{7})( |$$)' -- ':!**/testdata/**'; then echo "the files above hold merge conflict markers; resolve them" >&2; exit 1; fi
	$(LINT) run $(PKGS)
	@for module in $(MODULES); do \
		(cd $$module && go tool -modfile=../../tools/go.mod golangci-lint run -c ../../.golangci.yml ./...); \
	done

.PHONY: prose
prose: ## Check the language of documents, comments, texts and names; FILES are files and folders
	@tools/prose/check.sh $(FILES)

.PHONY: fmt
fmt: ## Format the code
	$(LINT) fmt

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME, one on each core
	@tools/fuzz.sh $(FUZZTIME) $(PKGS)

.PHONY: virtual
virtual: ## Run the delivery core in virtual time: every moment of a rebalance, refusals, SCHEDULES at random
	go vet -tags synctests ./consumer
	@go test -tags synctests -count=1 -timeout 20m -run 'TestVirtual' -v ./consumer -schedules $(SCHEDULES) | grep -Ev '^ *(=== |--- PASS)'
	@go test -tags synctests -race -count=1 -timeout 20m -run 'TestVirtual' ./consumer -schedules $(SCHEDULES)

.PHONY: chaos
chaos: ## Prove on real brokers that nothing is lost while things go wrong, for DURATION
	go run ./test/chaos -seed $(SEED) -duration $(DURATION)

.PHONY: mutants
mutants: ## Build the bridge with known mistakes; each must be found as make chaos finds them
	go run ./test/chaos mutants -seed 5

.PHONY: bench
bench: ## Measure the bridge as a process: throughput, latency, memory
	go run ./bench throughput
	go run ./bench latency
	go run ./bench memory

.PHONY: measure
measure: ## Try every measurement of make bench on a small topic; no part of make test, as it asks for a quiet machine
	go vet -tags measure ./bench
	go test -tags measure -count=1 -timeout 30m -run TestMeasurements ./bench

.PHONY: microbench
microbench: ## Run the Go benchmarks
	go test -run '^$$' -bench '$(BENCH)' -benchmem $(TESTARGS) $(PKGS)

.PHONY: cover
cover: ## Test and write the coverage to cover.html
	go test -count=1 -timeout 30m -p $(PARALLEL) -coverpkg=./... -coverprofile=cover.out $(PKGS)
	go tool cover -html=cover.out -o cover.html
	@go tool cover -func=cover.out | tail -1

.PHONY: demo
demo: ## See the bridge work, without Kafka or a workspace
	go run ./cmd/bridge demo

.PHONY: image
image: ## Build the container image; needs Docker
	docker build --build-arg VERSION=$(VERSION) -t bridge:$(VERSION) .

.PHONY: release
release: ## Build dist/: binaries, checksums, bills of materials, the chart; with VERSION=v1.2.3
	@go -C deploy/release run . -root $(CURDIR) -out $(CURDIR)/dist -version '$(VERSION)'

.PHONY: vuln
vuln: ## Look for known vulnerabilities, where https://vuln.go.dev can be reached
	@tools/vuln.sh $(PKGS)

.PHONY: clean
clean: ## Remove what the targets above left; the cache of Kafka's jars stays
	rm -rf bin dist cover.out cover.html
