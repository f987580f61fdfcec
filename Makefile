# `make` lists the targets. CI calls the same ones (.ci/run).
#
# Two of them do all the set-up on a fresh machine, and are quick the second
# time: run and test.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

# A statically linked binary, or gVisor cannot start its own processes again in
# the sandbox's chroot.
export CGO_ENABLED := 0

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo 0.0.0-dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
# Without Git's marks: the version says it, and an archive of the same sources has none.
GO_BUILD := go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)'

# Where `make run` listens; DATA_DIR is where images and sandboxes are kept.
LISTEN ?= 127.0.0.1:8000
ifdef DATA_DIR
export CAESARION_DATA_DIR := $(abspath $(DATA_DIR))
endif

CACHE := .cache
VENV := $(CACHE)/venv
TESTSUMMARY := $(CACHE)/testsummary
SUPPLY := $(CACHE)/supply
HELM := $(CACHE)/helm/helm
CLUSTER := $(CACHE)/cluster/bin/cluster
GOLANGCI := go tool -modfile=tools/go.mod golangci-lint
GOFUMPT := go tool -modfile=tools/go.mod gofumpt

# Packages whose tests start a Kubernetes of their own (test/kubetest), those that
# take longest first. KUBE_CLUSTERS of them run at a time: they mostly wait.
KUBE_FIRST = ./internal/sandbox/kube ./test/kube/faults ./test/chart/install
KUBE = $(KUBE_FIRST) $(filter-out $(KUBE_FIRST),./test/cluster $(shell grep -rl --include='*_test.go' 'kubetest[.]Main' internal cmd test | xargs -r -n 1 dirname | sort -u | sed 's|^|./|'))
KUBE_CLUSTERS ?= 2
# Packages whose tests start real sandboxes. They run one after the other: side
# by side on a small machine they would measure each other.
REAL = $(filter-out $(KUBE),$(shell go list -f '{{.Dir}}' ./cmd/... ./internal/sandbox/gvisor/... ./test/... | sed 's|^$(CURDIR)/|./|'))
UNIT = $(filter-out $(KUBE),$(shell go list -f '{{.Dir}}' ./... | sed 's|^$(CURDIR)/|./|' | grep -v -E '^\./(cmd|internal/sandbox/gvisor|test)(/|$$)'))

# The race detector needs cgo and a C compiler; where there is none, tests run
# without it and say so.
RACE := $(shell command -v gcc >/dev/null 2>&1 && echo 1 || echo 0)
TEST := go test -json -timeout 20m $(if $(CI),-count=1)
SUMMARY := $(TESTSUMMARY) $(if $(CI),-counts $(CACHE)/counts)

.DEFAULT_GOAL := help

##@ Use it

.PHONY: run
run: deps-run build image ## install what is missing, build, and start the server
	@bin/caesarion serve --listen $(LISTEN)

.PHONY: build
build: ## build bin/caesarion and bin/caesarion-agent
	@mkdir -p bin
	@if [ ! -x bin/caesarion ]; then echo "Building; the first time takes some minutes, because gVisor is part of it"; fi
	@$(GO_BUILD) -o bin/ ./cmd/caesarion-agent
	@$(GO_BUILD) -o bin/ ./cmd/caesarion

.PHONY: image
image: deps-run build ## build the sandbox image, unless it is there
	@if [ "$$(id -u)" -ne 0 ]; then echo "Sandboxes need root: try again as root (sudo make run)" >&2; exit 1; fi
	@bin/caesarion image build

##@ Test it

# What the Kubernetes tests need takes some ten minutes to compile the first time,
# with what the unit tests leave of the processors. Then these tests, which mostly
# wait, run beside those on this machine alone; what both need is there by then.
.PHONY: test
test: deps-kube deps-e2e build image venv ## every test, with all the set-up it needs
	@mkdir -p $(CACHE)/cluster
	@(exec nice -n 19 $(MAKE) --no-print-directory kube-build) >$(CACHE)/cluster/build.log 2>&1 & builder=$$!; \
	trap 'kill $$builder 2>/dev/null || true' EXIT; \
	status=0; \
	$(MAKE) --no-print-directory test-unit test-web || status=$$?; \
	$(MAKE) --no-print-directory test-kube & kube=$$!; \
	$(MAKE) --no-print-directory test-integration test-e2e || status=$$?; \
	wait $$kube || status=$$?; \
	exit $$status

.PHONY: test-unit
test-unit: $(TESTSUMMARY) venv ## tests without real sandboxes
	@[ $(RACE) = 1 ] || echo "No gcc: testing without the race detector"
	@{ status=0; export CGO_ENABLED=$(RACE); \
	$(TEST) $(if $(filter 1,$(RACE)),-race) $(UNIT) || status=$$?; \
	$(TEST) $(if $(filter 1,$(RACE)),-race) -short $(filter ./internal/%,$(KUBE)) || status=$$?; \
	exit $$status; } | $(SUMMARY)

.PHONY: test-integration
test-integration: $(TESTSUMMARY) deps-test build image venv ## tests with real gVisor, real kernels and the built binary
	@$(TEST) -p 1 $(REAL) | $(SUMMARY)

.PHONY: test-kube
test-kube: $(TESTSUMMARY) deps-kube build image venv kube-build ## tests in a real Kubernetes, which is built once (some ten minutes)
	@CAESARION_CLUSTER_SLOTS=$(KUBE_CLUSTERS) $(TEST) -timeout 60m -p $(KUBE_CLUSTERS) $(KUBE) | $(SUMMARY)

# Two that do it at a time wait for each other: nothing is compiled twice.
.PHONY: kube-build
kube-build: $(HELM)
	@go build -o $(CLUSTER) ./test/cluster
	@$(CLUSTER) build

.PHONY: test-web
test-web: deps-web ## tests of the page without a browser
	@scripts/web.sh test

.PHONY: test-e2e
test-e2e: deps-e2e build image ## tests of the page in a real browser, with real sandboxes and a scripted model
	@scripts/web.sh e2e

# The same attacks from pods are in test-kube. ESCAPE is more of go test's flags:
# make test-escape ESCAPE=-update writes docs/security/attacks.md.
.PHONY: test-escape
test-escape: $(TESTSUMMARY) deps-test build image ## attack the wall around real sandboxes from inside (part of test, too)
	@$(TEST) -count=1 ./test/escape $(ESCAPE) | $(SUMMARY)
	@$(TEST) -count=1 -p 1 ./test/escape/leaks ./test/escape/bounds | $(SUMMARY)

# Each target for a share of FUZZTIME: make fuzz FUZZTIME=1h.
FUZZTIME ?= 1m
.PHONY: fuzz
fuzz: venv ## feed what reads foreign bytes with random ones, for FUZZTIME in all
	@scripts/fuzz.sh $(FUZZTIME)

.PHONY: test-kernel-suite
test-kernel-suite: venv build ## the Jupyter project's own kernel tests, against ours
	@$(VENV)/bin/python -m pytest -q test/kernelsuite

# BENCH is more of the command's flags: make bench BENCH='--scenario live --markdown'.
.PHONY: bench
bench: build image venv ## measure, beside plain Jupyter, and print a table
	@bin/caesarion bench --compare jupyter --python $(VENV)/bin/python $(BENCH)

.PHONY: bench-peers
bench-peers: deps-peers build image ## the same beside Jupyter's gateway, E2B's inner server, runsc do, bubblewrap and Pyodide
	@scripts/bench-peers.sh $(CACHE)/peers
	@bin/caesarion bench --compare all --peers $(CACHE)/peers $(BENCH)

.PHONY: bench-web
bench-web: deps-e2e build image ## measure the page: first load, tokens, output, large sessions
	@scripts/web.sh bench

.PHONY: bench-kube
bench-kube: deps-kube image ## measure the product on a real Kubernetes, beside the one-machine server: docs/performance.md
	@CGO_ENABLED=0 go test -count=1 -timeout 60m -run '^$$' -bench . -benchtime 1x ./test/kubebench

.PHONY: check
check: generate-check manifests-check lint web-check test ## all that CI checks before a merge

##@ Look after what comes from others (docs/security/supply-chain.md)

# What could not be asked is told, and no failure; AUDIT=-strict makes it one.
# CAESARION_VULNDB names another database of Go's vulnerabilities, or a folder.
.PHONY: audit
audit: $(SUPPLY) deps-web ## ask for known vulnerabilities of Go modules, npm packages and wheels
	@nice $(SUPPLY) audit $(AUDIT)

.PHONY: licences
licences: $(SUPPLY) deps-web ## write the lists and texts of licences, and judge each
	@scripts/web.sh install
	@$(SUPPLY) licences $(if $(DATA_DIR),-images $(abspath $(DATA_DIR))/images)

# Locks and licences of what is in the repository; the tool's own tests.
.PHONY: supply-check
supply-check: $(SUPPLY) deps-web
	@scripts/web.sh install
	@cd tools/supply && go vet ./... && go test $(if $(CI),-count=1) ./...
	@$(SUPPLY) locks
	@$(SUPPLY) licences -check $(if $(DATA_DIR),-images $(abspath $(DATA_DIR))/images)

SBOM := $(CACHE)/sbom
.PHONY: sbom
sbom: $(SUPPLY) build image deps-web ## write bills of materials into SBOM (.cache/sbom): programs, page, image
	@scripts/web.sh install
	@$(SUPPLY) sbom -out $(SBOM) -version $(VERSION) $(if $(DATA_DIR),-images $(abspath $(DATA_DIR))/images)

.PHONY: reproducible reproducible-programs reproducible-page reproducible-image
reproducible: reproducible-programs reproducible-page ## build programs and page in another folder and compare every byte (COLD=1: from nothing)
reproducible-programs: build ; @scripts/reproducible.sh programs
reproducible-page: deps-web ; @scripts/reproducible.sh page
reproducible-image: image ## build the sandbox image again and compare its digest (some minutes)
	@scripts/reproducible.sh image

.PHONY: version
version:
	@echo '$(VERSION)'

##@ Work on it

.PHONY: web
web: deps-web ## build the page into web/dist, which becomes part of the binary
	@scripts/web.sh build

.PHONY: web-check
web-check: web
	@git diff --exit-code --stat -- web/dist && [ -z "$$(git status --porcelain -- web/dist)" ] || \
	{ echo "web/dist is not what the sources say: commit what make web wrote" >&2; exit 1; }

.PHONY: lint
lint: deps-lint deps-web supply-check ## golangci-lint, gofumpt, shellcheck, biome and tsc; locks and licences
	@$(GOLANGCI) run ./...
	@unformatted=$$($(GOFUMPT) -l cmd internal api images licenses tools $(wildcard test)); \
	if [ -n "$$unformatted" ]; then echo "gofumpt would change:" $$unformatted; exit 1; fi
	@cd tools && go vet ./testsummary
	@scripts/web.sh lint
	@shellcheck .ci/run scripts/*.sh examples/*.sh $(wildcard images/*/*.sh)

.PHONY: fmt
fmt: ## format the Go code
	@$(GOLANGCI) fmt ./...

.PHONY: generate
generate: build deps-web ## write the generated files (api/openapi.yaml, and the page's types from it)
	@mkdir -p $(CACHE)
	@bin/caesarion openapi > $(CACHE)/openapi.yaml && mv $(CACHE)/openapi.yaml api/openapi.yaml
	@scripts/web.sh generate >/dev/null

.PHONY: generate-check
generate-check: generate
	@git diff --exit-code --stat -- api/openapi.yaml web/src/api/openapi.ts || { echo "These files are not what the code says: commit what make generate wrote" >&2; exit 1; }

# The manifests for those who don't use Helm, from the chart. Names of images
# are placeholders there: a reference by digest is everybody's own.
.PHONY: manifests
manifests: $(HELM) ## render deploy/kubernetes from the chart
	@{ cat deploy/kubernetes/head.yaml && \
	$(HELM) template caesarion deploy/helm/caesarion --namespace caesarion --values deploy/kubernetes/values.yaml --no-hooks | \
	sed -E -e 's|example.org/server@sha256:0+|SERVER_IMAGE|' -e 's|example.org/python@sha256:0+|SANDBOX_IMAGE|' -e '/^# Source: /d' | \
	sed -e '$$!N;s/^\n---$$/---/;P;D'; \
	} > $(CACHE)/manifests.yaml && mv $(CACHE)/manifests.yaml deploy/kubernetes/caesarion.yaml

.PHONY: manifests-check
manifests-check: manifests
	@git diff --exit-code --stat -- deploy/kubernetes/caesarion.yaml || { echo "deploy/kubernetes is not what the chart says: commit what make manifests wrote" >&2; exit 1; }

.PHONY: venv
venv: deps-test ## the tests' Python environment, from its locked list
	@scripts/venv.sh $(VENV) test/kernelsuite/requirements.txt

.PHONY: screens
screens: deps-e2e build image ## take the pictures of docs/screens
	@scripts/web.sh screens

.PHONY: deps-run deps-test deps-kube deps-lint deps-web deps-e2e deps-peers
deps-run: ; @scripts/deps.sh run
deps-test: ; @scripts/deps.sh run test
deps-kube: ; @scripts/deps.sh run test kube
deps-lint: ; @scripts/deps.sh lint
deps-web: ; @scripts/deps.sh web
deps-e2e: ; @scripts/deps.sh e2e
deps-peers: ; @scripts/deps.sh run test peers

.PHONY: clean
clean: ## remove what make made, but for the sandbox image
	@! [ -x $(CLUSTER) ] || $(CLUSTER) down 2>/dev/null || true
	@rm -rf bin $(CACHE)

.PHONY: help
help:
	@awk 'BEGIN { FS = ":.*## "; print "make TARGET" } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(TESTSUMMARY): tools/testsummary/main.go tools/go.mod
	@mkdir -p $(CACHE)
	@go build -C tools -o ../$@ ./testsummary

$(SUPPLY): $(wildcard tools/supply/*.go) tools/supply/go.mod
	@mkdir -p $(CACHE)
	@go build -C tools/supply -o ../../$@ .

# Of the module that Kubernetes for tests is built in, as it needs the same packages.
$(HELM): test/cluster/kube/go.mod test/cluster/kube/go.sum
	@mkdir -p $(@D)
	@if [ ! -x $@ ]; then echo "Building helm; the first time takes some minutes"; fi
	@flock $@.lock go build -C test/cluster/kube -trimpath -ldflags '-s -w' -o ../../../$@ helm.sh/helm/v4/cmd/helm
