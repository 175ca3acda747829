# Hogstream: everything a developer runs. `make` alone lists it.

SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

GO        ?= go
SEEDS     ?= 100
BROKERS   ?=
FUZZTIME  ?= 20s
TEST_TIMEOUT ?= 10m
ARGS      ?=

GOLANGCI  := bin/golangci-lint
GOVULN    := bin/govulncheck

# What make run builds: without optimising for a profile, which doubles the time of a first build.
DEVBUILD  := CGO_ENABLED=0 tools/build.sh $(GO) build -v -trimpath -pgo=off -o bin/hogstream ./cmd/hogstream

COMPOSE   := docker compose -f compose/compose.yaml

##@ Run
.PHONY: run demo build
run: ## Start everything in one process, no docker (ARGS="--port 8080" and so on)
	@$(DEVBUILD)
	@bin/hogstream dev $(ARGS)

demo: ## Stream a real clickstream through it to a local receiver and check the figures
	@$(DEVBUILD)
	@bin/hogstream demo $(ARGS)

build: ## Build the binary into bin/hogstream
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/hogstream ./cmd/hogstream

##@ Check
.PHONY: test race fuzz faults lint fmt vuln bench profile e2e
test: ## Run all tests; needs nothing but Go and the Postgres binaries
	$(GO) test -timeout $(TEST_TIMEOUT) $(ARGS) ./...

race: ## Run all tests under the race detector
	$(GO) test -race -timeout 30m $(ARGS) ./...

fuzz: ## Run every fuzz test for FUZZTIME (20s)
	@found=0; \
	for file in $$(grep -rl --include='*_test.go' '^func Fuzz' . | grep -v '^./tools/' | sort); do \
	  for name in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$$file"); do \
	    found=1; echo "== $$name in $$(dirname "$$file")"; \
	    $(GO) test -run '^$$' -fuzz "^$$name$$" -fuzztime $(FUZZTIME) "$$(dirname "$$file")"; \
	  done; \
	done; \
	[ "$$found" = 1 ] || echo "no fuzz tests yet"

faults: ## Run the fault tests with SEEDS (100) seeds each; a failing run prints its seed
	HOGSTREAM_FAULT_SEEDS=$(SEEDS) $(GO) test -count=1 -timeout 4h -run 'Fault' $(ARGS) ./...

lint: $(GOLANGCI) ## Check style, import rules and formatting, then known vulnerabilities
	$(GOLANGCI) run ./...
	@$(MAKE) --no-print-directory vuln

fmt: $(GOLANGCI) ## Format the code and fix what the linter can fix
	$(GOLANGCI) run --fix ./...

vuln: $(GOVULN) ## Check dependencies for known vulnerabilities
	tools/govulncheck.sh $(GOVULN) ./...

bench: ## Measure throughput and latency, write docs/BENCHMARKS.md
	$(GO) run ./cmd/hogstream bench $(ARGS)

profile: ## Measure anew what the compiler optimises for (cmd/hogstream/default.pgo)
	rm -rf bin/profile
	$(GO) run ./cmd/hogstream bench ingest processors buckets lanes batches backfill journeys joins --rounds 2 --out "" --profile bin/profile
	rm -f bin/profile/*plain*.pprof
	cd tools && $(GO) build -o ../bin/merge-profiles ./profile
	bin/merge-profiles cmd/hogstream/default.pgo bin/profile/*.pprof

e2e: ## Run the end-to-end suite on Kafka (starts one when KAFKA_BROKERS is unset)
	compose/kafka/e2e.sh $(ARGS)

##@ Surroundings
.PHONY: kafka kafka-stop kafka-clean up down logs
kafka: ## Start Apache Kafka and a schema registry without docker (BROKERS=1 or 3)
	BROKERS=$(BROKERS) compose/kafka/kafka.sh start

kafka-stop: ## Stop them, keeping their data
	compose/kafka/kafka.sh stop

kafka-clean: ## Stop them and delete their data
	compose/kafka/kafka.sh clean

up: ## Start Redpanda, Kafka UI, Postgres and Hogstream in docker (PROFILE=observability adds dashboards)
	@compose/env.sh
	@compose/ports.sh
	$(COMPOSE) $(if $(PROFILE),--profile $(PROFILE)) up --build --detach --wait

down: ## Stop them (ARGS=--volumes deletes their data)
	$(COMPOSE) --profile observability down $(ARGS)

logs: ## Follow what they log
	$(COMPOSE) logs --follow

##@ Help
.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} \
	  /^##@ / {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Tools live in a module of their own (tools/) and are built once.
$(GOLANGCI): tools/go.mod tools/go.sum
	@echo "building golangci-lint (some minutes the first time)"
	cd tools && $(GO) build -o ../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

$(GOVULN): tools/go.mod tools/go.sum
	cd tools && $(GO) build -o ../$@ golang.org/x/vuln/cmd/govulncheck

