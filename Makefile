# Everything runs with Go, make and git; the tests on Apache Kafka need Java 17
# and Maven too and are skipped without them. make help lists the targets.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Packages to test, vet and lint, as in make test PKGS=./consumer/... or PKGS=./test/e2e
PKGS ?= ./...
# Further arguments of go test, as in make test TESTARGS='-run TestRevoke -v'; of make cluster-test, as in TESTARGS='-only mistake'
TESTARGS ?=
# Test binaries of the module test at a time, beside one of the bridge's own; 2 suits 2 cores and 4 GB
PARALLEL ?= 2
# What make prose looks at; empty is everything
FILES ?=
# How long each fuzz target runs: 10s for a change, 1m for a night
FUZZTIME ?= 10s
# How long make chaos injects faults
DURATION ?= 2m
# The seed of make chaos, which decides the faults; 0 picks one at random and prints it
SEED ?= 0
# The releases of Apache Kafka that make test-brokers runs on, as Maven Central names them
BROKERS ?= 3.3.2,3.9.2,4.4.0
# How many random schedules make virtual runs; an eighth of them with the race detector
SCHEDULES ?= 400
# Which Go benchmarks run, as in make microbench BENCH=Map
BENCH ?= .
# The commit that make guard compares with; empty is the last one that differs
REF ?=
# What bridge version prints
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

LDFLAGS := -s -w -X main.release=$(VERSION)
LINT := go tool -modfile=$(CURDIR)/tools/go.mod golangci-lint

# Tests and benchmarks have dependencies that are not the bridge's, so they are Go
# modules: test, bench, and four below deploy. PKGS names packages of the bridge's
# module, of test and of bench, all from the root; ./... is everything.
ALL := $(filter ./...,$(PKGS))
MODULES := $(if $(ALL),deploy/charttest deploy/clustertest deploy/observetest deploy/release)
MAIN_PKGS := $(filter-out ./test/% ./bench ./bench/%,$(PKGS))
TEST_PKGS := $(if $(ALL),./...,$(patsubst ./test/%,./%,$(filter ./test/%,$(PKGS))))
BENCH_PKGS := $(if $(ALL),./...,$(patsubst ./bench%,.%,$(filter ./bench ./bench/%,$(PKGS))))

# The packages whose tests wait longest begin first: at the end they would wait
# alone. test/scale keeps both cores busy, so it begins when they have less to do. go
# test runs each package once, however often it is named.
MAIN_LONGEST := $(if $(ALL),./consumer)
TEST_LONGEST := $(if $(ALL),./e2e)

# Runs a command on the packages of each module and sets status if it fails.
on_packages = $(if $(MAIN_PKGS),$(1) $(MAIN_PKGS) || status=$$?;) \
	$(if $(TEST_PKGS),(cd test && $(1) $(TEST_PKGS)) || status=$$?;) \
	$(if $(BENCH_PKGS),(cd bench && $(1) $(BENCH_PKGS)) || status=$$?;)

.PHONY: help
help: ## List the targets and their settings
	@echo "Targets:"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "Settings, as in make test PKGS=./consumer/... :"
	@awk '/^# / { text = text " " substr($$0, 3); next } /^[A-Z]+ \?=/ { printf "  %-9s%s\n", $$1, text } { text = "" }' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build bin/bridge, static
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/bridge ./cmd/bridge

.PHONY: test
test: vet ## Vet, then run every test with the race detector, on Apache Kafka too
	@tools/chromium.sh || [ "$${REQUIRE_CHROMIUM:-}" != 1 ]
	@counts=$$(mktemp); trap 'rm -f "$$counts"' EXIT; status=0; \
	export KAFKATEST_COUNT_FILE=$$counts; \
	$(MAKE) --no-print-directory -k -j2 test-bridge test-outside || status=$$?; \
	if [ -s "$$counts" ]; then \
		awk '{ n++; v = $$1 } END { printf "%d tests ran on Apache Kafka %s\n", n, v }' "$$counts"; \
	else \
		echo "0 tests ran on Apache Kafka"; \
	fi; \
	exit $$status

# The two halves of make test run beside each other. The limits are for one package;
# on two cores the longest takes 5 minutes of the bridge's, 17 of the other module's.
GOTEST := go test -race -count=1
.PHONY: test-bridge test-outside
test-bridge:
	@status=0; $(if $(MAIN_PKGS),$(GOTEST) -timeout 20m $(TESTARGS) -p 1 $(MAIN_LONGEST) $(MAIN_PKGS) || status=$$?;) \
	$(if $(BENCH_PKGS),(cd bench && $(GOTEST) -timeout 20m $(TESTARGS) $(BENCH_PKGS)) || status=$$?;) \
	for module in $(MODULES); do go -C $$module test -count=1 -timeout 30m ./... || status=$$?; done; exit $$status

test-outside:
	@$(if $(TEST_PKGS),cd test && $(GOTEST) -timeout 45m $(TESTARGS) -p $(PARALLEL) $(TEST_LONGEST) $(TEST_PKGS))

.PHONY: test-brokers
test-brokers: ## Run the tests of delivery on each of BROKERS; up to half an hour, so no part of make test
	go -C test run ./brokers -versions $(BROKERS)

.PHONY: short
short: ## Run the tests without the race detector and without Apache Kafka
	@status=0; $(call on_packages,go test -short -timeout 20m -p $(PARALLEL) $(TESTARGS)) exit $$status

.PHONY: year-on
year-on: ## Run the tests as they will run a year from now; see tools/another-day.sh
	for module in . test bench; do go -C $$module mod download; done
	tools/another-day.sh 365 $(MAKE) without-race

.PHONY: without-race
without-race:
	@status=0; $(call on_packages,go test -count=1 -timeout 30m -p $(PARALLEL) $(TESTARGS)) exit $$status

.PHONY: vet
vet: ## Run go vet
	@status=0; $(call on_packages,go vet) \
	for module in $(MODULES); do go -C $$module vet ./... || status=$$?; done; exit $$status

.PHONY: lint
lint: ## Run the linters of .golangci.yml, check formatting and language, and look for merge conflict markers
	@if git grep -nE '^(<{7}|>{7}|\|{7})( |$$)' -- ':!**/testdata/**'; then echo "the files above hold merge conflict markers; resolve them" >&2; exit 1; fi
	@status=0; $(call on_packages,$(LINT) run -c $(CURDIR)/.golangci.yml) \
	for module in $(MODULES); do \
		(cd $$module && $(LINT) run -c $(CURDIR)/.golangci.yml ./...) || status=$$?; \
	done; \
	$(if $(ALL),tools/prose/check.sh || status=$$?;) exit $$status

.PHONY: prose
prose: ## Check the language of documents, comments, texts and names; FILES are files and folders
	@tools/prose/check.sh $(FILES)

.PHONY: fmt
fmt: ## Format the code
	$(LINT) fmt

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME, one on each core
	@tools/fuzz.sh $(FUZZTIME) $(MAIN_PKGS)

.PHONY: virtual
virtual: ## Run the delivery core in virtual time: every moment of a rebalance, refusals, SCHEDULES at random
	go vet -tags synctests ./consumer
	@go test -tags synctests -count=1 -timeout 20m -run 'TestVirtual' -v ./consumer -schedules $(SCHEDULES) | grep -Ev '^ *(=== |--- PASS)'
	@go test -tags synctests -race -count=1 -timeout 20m -run 'TestVirtual' ./consumer -schedules $(SCHEDULES)

.PHONY: chaos
chaos: ## Prove on real brokers that nothing is lost while things go wrong, for DURATION
	go -C test run ./chaos -seed $(SEED) -duration $(DURATION)

.PHONY: store-chaos
store-chaos: ## Prove on real brokers that the store of integrations loses no change, for DURATION
	go -C test run ./storechaos -seed $(SEED) -duration $(DURATION)

.PHONY: mutants
mutants: ## Build the bridge with known mistakes; each must be found as make chaos finds them
	go -C test run ./chaos mutants -seed 5

.PHONY: bench
bench: ## Measure the bridge as a process: throughput, latency, memory
	go -C bench run . throughput
	go -C bench run . latency
	go -C bench run . memory

.PHONY: measure
measure: ## Try every measurement of make bench on a small topic; no part of make test, as it needs a quiet machine
	go -C bench vet -tags measure .
	@if command -v gcc >/dev/null; then go -C bench/peers/librdkafka vet .; fi
	go -C bench test -tags measure -count=1 -timeout 30m -run TestMeasurements .

.PHONY: guard
guard: ## Compare the processor time per row with the commit before; reports, and never fails
	@tools/guard.sh $(REF)

.PHONY: oidc
oidc: ## Sign in to the console through oauth2-proxy and an identity provider for tests; builds the proxy, so no part of make test
	tools/oidc-proxy.sh

.PHONY: api-clients
api-clients: ## Run schemathesis and a generated client over the install API; installs both, so no part of make test
	tools/api-clients.sh

.PHONY: cluster-test
cluster-test: ## Install the chart on a Kubernetes API server, which is built from its Go modules; no part of make test
	@go -C deploy/clustertest run . $(TESTARGS)

.PHONY: sdk
sdk: ## Have the official Python SDK and the bridge write to the emulator; installs the SDK, so no part of make test
	tools/official-sdk.sh

.PHONY: microbench
microbench: ## Run the Go benchmarks
	go test -run '^$$' -bench '$(BENCH)' -benchmem $(TESTARGS) $(MAIN_PKGS)

.PHONY: cover
cover: ## Test and write the coverage to cover.html
	go test -count=1 -timeout 30m -p $(PARALLEL) -coverpkg=./... -coverprofile=cover.out $(MAIN_PKGS)
	go tool cover -html=cover.out -o cover.html
	@go tool cover -func=cover.out | tail -1

.PHONY: demo
demo: ## See the bridge work, without Kafka or a workspace
	go run ./cmd/bridge demo

.PHONY: image
image: ## Build the container image; needs Docker
	DOCKER_BUILDKIT=1 docker build --build-arg VERSION=$(VERSION) --build-arg GOPROXY \
		--build-arg SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct || echo 0)} -t bridge:$(VERSION) .

# Tests on an engine of their own: they run as root, on Linux, and are no part of make test.
# In the folder of the package, go test passes the table of the checks on.
ENGINE_TEST = @cd $(1) && go vet -tags engines . && go test -tags engines -count=1 -timeout 90m $(TESTARGS)

.PHONY: image-test
image-test: ## Build the image and run it as operators do, on a Docker engine of its own; needs root, installs Docker on Debian
	@tools/engines.sh dockerd=docker.io docker=docker.io busybox=busybox-static
	$(call ENGINE_TEST,test/engine)
	$(call ENGINE_TEST,test/image)

.PHONY: compose-test
compose-test: ## Start docker-compose.yml and watch it work, on a Docker engine of its own; needs root, installs what it runs on Debian
	@tools/engines.sh dockerd=docker.io docker=docker.io busybox=busybox-static java=openjdk-17-jre-headless mvn=maven curl=curl
	@tools/compose.sh
	$(call ENGINE_TEST,test/compose)

.PHONY: release
release: ## Build dist/: binaries, checksums, bills of materials, the chart; with VERSION=v1.2.3
	@go -C deploy/release run . -root $(CURDIR) -out $(CURDIR)/dist -version '$(VERSION)'

.PHONY: vuln
vuln: ## Look for known vulnerabilities, where https://vuln.go.dev can be reached
	@tools/vuln.sh $(MAIN_PKGS)

.PHONY: clean
clean: ## Remove what the targets above left; the cache of Kafka's jars and of Kubernetes stays
	rm -rf bin dist cover.out cover.html
