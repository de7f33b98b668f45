# "make help" lists the targets: every "target: ## text" of this file.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
IMAGE ?= celery-hpa:$(VERSION)
CONTAINER_TOOL ?= docker
BROKER ?= redis
MODULES := . hack/tools hack/generators hack/charttools hack/charttools/kubescore hack/localkube/kube hack/realcluster/node hack/realcluster/containerd
SHELL_SCRIPTS := hack/setup/setup.sh hack/setup/requirements.sh hack/realcluster/build.sh .ci/run

# One set of flags for all that is compiled here, so that what program, tests and
# control plane share is compiled once: static, without paths of this machine, and
# without what only debuggers read.
export CGO_ENABLED := 0
export GOFLAGS := -trimpath -buildvcs=false -gcflags=all=-dwarf=false $(GOFLAGS)

# The tools are pinned in a module of their own, so that what they need has no
# part in what the program needs.
TOOL := go tool -modfile=hack/tools/go.mod
LINT := $(TOOL) golangci-lint
TEST := $(TOOL) gotestsum --format=testname --

# So are those for the chart. What Helm is told by the user's settings has no part here.
CHART_TOOL := go tool -modfile=hack/charttools/go.mod
HELM := env HELM_CONFIG_HOME=/nonexistent HELM_DATA_HOME=/nonexistent $(CHART_TOOL) helm.sh/helm/v4/cmd/helm
CHART := deploy/helm/celery-hpa
# What deploy/manifests/install.yaml holds. Only Helm knows what to keep.
RENDER := cat deploy/helm/namespace.yaml && $(HELM) template celery-hpa $(CHART) --namespace celery-hpa --kube-version 1.37.0 --set crds.keep=false

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-22s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build the program: bin/celery-hpa, one static binary
	go build -ldflags '-s -w -X main.version=$(VERSION)' -o bin/celery-hpa ./cmd/celery-hpa

.PHONY: demo
demo: setup-demo control-plane ## Show it: the HPA scales real Celery workers, on a control plane of this machine (or BROKER=rabbitmq)
	@go run ./hack/progress/cmd/step "compiling the demo" go build -o bin/demo ./hack/demo
	@BROKER=$(BROKER) bin/demo

.PHONY: setup
setup: ## Install what tests need: redis-server, rabbitmq-server, prometheus, and Celery of its own
	hack/setup/setup.sh

.PHONY: setup-demo
setup-demo: ## Install what the demo needs: the same without prometheus
	hack/setup/setup.sh demo

.PHONY: control-plane
control-plane: ## Build the control plane of demo and tests, once for each version (minutes)
	@go run ./hack/localkube/cmd/localkube-build

.PHONY: test
test: setup control-plane chart-tools ## Run every test
	@go run ./hack/progress/cmd/step "compiling the tests" go test -run '^$$' ./...
	$(TEST) -timeout 30m ./...

.PHONY: test-unit
test-unit: ## Run the tests of the daily loop, without a control plane
	go test ./pkg/... ./cmd/...

.PHONY: test-race
test-race: ## Run the tests of what runs concurrently under the race detector (needs a C compiler)
	CGO_ENABLED=1 GOFLAGS= go test -race ./pkg/observe/... ./pkg/broker/... ./pkg/decide/... ./pkg/act/... ./test/fleets ./pkg/brokersfile/... ./pkg/serve/externalmetrics/... ./pkg/serve/promexport/... ./hack/progress/...

.PHONY: check-cluster
check-cluster: ## Fail if "make test-cluster" cannot run on this machine, and say what is missing
	@hack/realcluster/build.sh check

.PHONY: test-cluster
test-cluster: check-cluster control-plane chart-tools ## Run image and chart in a whole cluster on this machine: needs root on Linux
	hack/setup/setup.sh cluster
	@go run ./hack/progress/cmd/step "building the node's programs" hack/realcluster/build.sh programs
	@go run ./hack/progress/cmd/step "building the base images" hack/realcluster/build.sh base
	@go run ./hack/progress/cmd/step "building the image of celery-hpa" hack/realcluster/build.sh image
	CLUSTER=1 $(TOOL) gotestsum --format=standard-verbose -- -count=1 -timeout 30m ./test/cluster

.PHONY: soak
soak: setup control-plane ## Scale every kind of workers down again and again, for an hour
	go test -v -count=1 -timeout 150m ./test/e2e -run 'ScaleDownTakes|EveryTask|HPAKeeps' \
		-every -rounds 20 -random-tasks 200 -random-time 10m

SCHEDULES ?= 1000000
SEED ?= 1
.PHONY: simulate
simulate: ## Run SCHEDULES random schedules of faults, from SEED on, against a model of the world
	go test -v -count=1 -timeout 0 ./test/simulation -run Schedules -schedules $(SCHEDULES) -seed $(SEED) -progress

.PHONY: bench
bench: setup control-plane ## Run the benchmarks
	go test -run '^$$' -bench . -benchmem -timeout 60m ./...

.PHONY: image
image: ## Build the container image with CONTAINER_TOOL (docker, podman, buildah)
	$(CONTAINER_TOOL) build --build-arg VERSION=$(VERSION) --tag $(IMAGE) .

.PHONY: lint
lint: ## Run the linters over Go, shell and YAML
	hack/setup/setup.sh lint
	$(LINT) run ./...
	shellcheck $(SHELL_SCRIPTS)
	yamllint --strict .

GENERATE_CRD := go tool -modfile=hack/generators/go.mod controller-gen crd paths=./pkg/api/v1alpha1 output:crd:stdout

.PHONY: generate
generate: ## Generate the definition of the CeleryBroker resource from the Go types
	$(GENERATE_CRD) > deploy/helm/celery-hpa/files/crd.yaml

.PHONY: verify-generate
verify-generate: ## Fail if what "make generate" writes is not up to date
	@diff <($(GENERATE_CRD)) deploy/helm/celery-hpa/files/crd.yaml

# Without descriptions, which would be most of the text.
OPERATOR_KINDS := go -C hack/generators tool controller-gen crd:maxDescLen=0 \
	paths=github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1 \
	paths=github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1 output:crd:stdout

.PHONY: operator-kinds
operator-kinds: ## Print the definitions of the resources of operators that the chart makes
	@$(OPERATOR_KINDS)

.PHONY: chart-tools
chart-tools: ## Build Helm and what the chart is checked with, once for each version (minutes)
	@go run ./hack/progress/cmd/step "building Helm" $(CHART_TOOL) -n helm.sh/helm/v4/cmd/helm
	@go run ./hack/progress/cmd/step "building Helm 3" $(CHART_TOOL) -n helm.sh/helm/v3/cmd/helm
	@go run ./hack/progress/cmd/step "building kubeconform" $(CHART_TOOL) -n github.com/yannh/kubeconform/cmd/kubeconform
	@go run ./hack/progress/cmd/step "generating the resources of operators" $(OPERATOR_KINDS)

# Left out of kube-score, which cannot know: a NetworkPolicy is the cluster's to decide; a
# limit of CPU would age the samples just when there is most to do; nothing is written but
# the log; an image is pulled again only if its tag moves; pods are spread by
# topologySpreadConstraints in place of anti-affinity.
KUBE_SCORE := go tool -modfile=hack/charttools/kubescore/go.mod kube-score score --ignore-test pod-networkpolicy --ignore-container-cpu-limit \
	--ignore-test container-ephemeral-storage-request-and-limit \
	--ignore-test container-image-pull-policy --ignore-test deployment-has-host-podantiaffinity

.PHONY: chart-lint
chart-lint: ## Check the chart: helm lint, helm-unittest, kube-score
	$(HELM) lint --strict $(CHART)
	$(HELM) lint --strict $(CHART) --values $(CHART)/tests/all-values.yaml
	$(CHART_TOOL) helm-unittest $(CHART)
	set -o pipefail; $(HELM) template celery-hpa $(CHART) --namespace celery-hpa | $(KUBE_SCORE) -

.PHONY: manifests
manifests: ## Write what is generated from the chart, and for it
	cp deploy/grafana/celery-hpa.json $(CHART)/files/dashboard.json
	cp deploy/prometheus/rules.yaml $(CHART)/files/rules.yaml
	text=$$($(RENDER)) && echo "$$text" >deploy/manifests/install.yaml

.PHONY: verify-manifests
verify-manifests: ## Fail if "make manifests" would change something
	diff deploy/grafana/celery-hpa.json $(CHART)/files/dashboard.json
	diff deploy/prometheus/rules.yaml $(CHART)/files/rules.yaml
	text=$$($(RENDER)) && diff deploy/manifests/install.yaml - <<<"$$text"

.PHONY: verify
verify: verify-format verify-modules verify-generate verify-requirements verify-manifests ## Run every verify-* target

.PHONY: verify-format
verify-format: ## Fail if Go code is not formatted
	$(LINT) fmt --diff ./...

.PHONY: update-format
update-format: ## Format Go code
	$(LINT) fmt ./...

.PHONY: verify-modules
verify-modules: ## Fail if a go.mod or go.sum is not tidy
	@for module in $(MODULES); do (cd $$module && go mod tidy -diff) || exit 1; done

.PHONY: update-modules
update-modules: ## Tidy every go.mod and go.sum
	@for module in $(MODULES); do (cd $$module && go mod tidy) || exit 1; done

.PHONY: verify-requirements
verify-requirements: ## Fail if the pinned Celery is not what its requirements ask for
	hack/setup/requirements.sh verify

.PHONY: update-requirements
update-requirements: ## Pin the newest versions that the requirements of Celery allow
	hack/setup/requirements.sh update

.PHONY: clean
clean: ## Remove what build made (the cache folder stays)
	rm -rf bin
