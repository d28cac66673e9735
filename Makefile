# The commands of a developer; `make help` lists them. Needs Python 3.11 or newer and a package index.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PROTOS_VENV := .venv-protos
OLDEST_VENV := .venv-oldest
PEERS_VENV := .venv-peers
AUDIT_VENV := .venv-audit
TRITON_VENV := .venv-triton
KSERVE_VENV := .venv-kserve
CLIENT_VENV := .venv-client
PYTHONS := 3.11 3.12 3.13 3.14
PLATFORMS := x86_64-manylinux_2_35 aarch64-manylinux_2_35
PYTHON_VENV := .venv-$(notdir $(PYTHON))
STUBS := protos/python
PAGE := docs/protocol.md
OPENAPI := server/patchserve_server/web/openapi.json
SERVICES := protos/patchserve/v1/service.proto protos/patchserve/kserve/open_inference.proto
PROTOC := PATH="$(CURDIR)/$(PROTOS_VENV)/bin:$$PATH" $(PROTOS_VENV)/bin/python -m grpc_tools.protoc -Iprotos
# pip shows its progress to a person and keeps quiet in a log.
QUIET := $(if $(MAKE_TERMOUT),,--quiet)
PEERS := PYTHONWARNINGS=ignore PYTHONPATH=server:client:protos/python:benchmarks $(PEERS_VENV)/bin/python
LOCK = $(BIN)/uv pip compile -q --no-header --generate-hashes --universal --python-version 3.11 $(ARGS)
# Wheels of torch from another index, such as those for CPUs, which need no CUDA (4 GB less): make setup TORCH_INDEX=URL.
# They are not checked, unless TORCH_HASHES names a requirements file with their hashes.
TORCH_INDEX ?=
TORCH_HASHES ?=
TORCH = $(if $(TORCH_INDEX),--torch-index "$(TORCH_INDEX)" $(if $(TORCH_HASHES),--torch-hashes "$(TORCH_HASHES)"))
# Extra arguments of the command behind most targets: make test ARGS="-k stream"
ARGS ?=
# Processes that run tests; 0 runs all in one, for a debugger. The tests of a file stay in one process, in their order.
WORKERS ?= 2
PYTEST = -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# A labeled data set in MVTec's layout, for bench-peers: make bench-peers DATASET=folder
DATASET ?=

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

# An environment without its stamp was interrupted: start again.
define make-venv
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "patchserve needs Python 3.11 or newer; name one with PYTHON=")'
	$(if $(wildcard $@),,$(PYTHON) -m venv --clear $(@D))
	@rm -f $@
	$(@D)/bin/python tools/install_lock.py $< $(TORCH) $(QUIET)
endef

.PHONY: setup
setup: $(STAMP) ## make .venv with everything locked (about 8 GB, most of it torch); TORCH_INDEX=URL: torch from there
$(STAMP): requirements/dev.txt pyproject.toml
	$(make-venv)
	$(BIN)/python -m pip install $(QUIET) --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: demo
demo: $(STAMP) ## start a server, inspect sample parcels over gRPC, write out/demo; ARGS=--open shows its page
	$(BIN)/python samples/demo.py $(ARGS)

.PHONY: serve
serve: $(STAMP) ## start the server with the best available backbone: gRPC on 50051, its page on http://127.0.0.1:8080
	$(BIN)/patchserve-server serve --backbone auto --http-port 8080 $(ARGS)

.PHONY: page-pictures
page-pictures: $(STAMP) ## take the pictures of the page in docs/images (needs chromium); ARGS=folder: every screen, phone and dark too
	PYTHONPATH=tests $(BIN)/python tools/page_pictures.py $(ARGS)

.PHONY: dashboard-picture
dashboard-picture: $(STAMP) ## draw docs/images/dashboard.png: a real Prometheus watches a server for two minutes
	GRPC_VERBOSITY=NONE PYTHONPATH=tests $(BIN)/python tools/dashboard_picture.py

SITE := tools/site

.PHONY: site
site: $(STAMP) $(SITE)/node_modules/.package-lock.json ## build the documentation site, strictly: out/site/index.html opens without a server (needs Node.js)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict # with --quiet, warnings would pass

$(SITE)/node_modules/.package-lock.json: $(SITE)/package-lock.json
	cd $(SITE) && npm ci $(if $(MAKE_TERMOUT),,--silent) --no-audit --no-fund
	@touch $@

AZURITE := tests/azurite

.PHONY: azurite
azurite: $(AZURITE)/node_modules/.package-lock.json ## install the emulator of Azure Blob Storage for the tests of stores (needs Node.js)

$(AZURITE)/node_modules/.package-lock.json: $(AZURITE)/package-lock.json
	cd $(AZURITE) && npm ci $(if $(MAKE_TERMOUT),,--silent) --no-audit --no-fund --omit=optional --ignore-scripts
	@touch $@

.PHONY: bench
bench: $(STAMP) $(PEERS_VENV)/.installed ## compare speed with Flask, anomalib, torch, scikit-learn: 25 to 50 minutes (another 7 GB, .venv-peers)
	$(PEERS) benchmarks/bench_backbone.py
	$(PEERS) benchmarks/bench_search.py
	$(PEERS) benchmarks/bench_metrics.py
	$(PEERS) benchmarks/bench_metrics.py --stub
	$(PEERS) -m throughput $(ARGS)

.PHONY: reliability
reliability: $(STAMP) ## overload, drain, kill, fuzz and soak a real server: an hour; ARGS="kill --amount 20" runs one part
	PYTHONPATH=benchmarks $(BIN)/python -m reliability $(ARGS)

# The folder with the labeled sets of docs/accuracy.md: make accuracy DATA=folder
DATA ?=

.PHONY: accuracy
accuracy: $(STAMP) ## measure the tables of docs/accuracy.md: DATA=folder; ARGS=NAME: one of them
	$(if $(DATA),,$(error accuracy needs DATA=folder, with the labeled sets in the layout of MVTec AD))
	PYTHONPATH=benchmarks $(BIN)/python -m accuracy "$(DATA)" $(ARGS)

.PHONY: bench-scale
bench-scale: $(STAMP) ## simulate a thousand servers on one store: the tables of docs/scale.md, some minutes
	PYTHONPATH=benchmarks:tests $(BIN)/python -m scale $(ARGS)

.PHONY: bench-gpu
bench-gpu: $(STAMP) ## measure what the server makes of a GPU: 6 minutes, one table (benchmarks/gpu/pack.sh for a machine without a network)
	PYTHON=$(BIN)/python benchmarks/gpu/run.sh $(ARGS)

.PHONY: bench-peers
bench-peers: $(if $(DATASET),$(PEERS_VENV)/.installed) ## compare verdicts and coresets with anomalib's: DATASET=folder
	$(if $(DATASET),,$(error bench-peers needs DATASET=folder, labeled images in the layout of MVTec AD))
	$(PEERS) benchmarks/bench_coreset.py $(ARGS)
	$(PEERS) benchmarks/accuracy_anomalib.py "$(DATASET)"

$(PEERS_VENV)/.installed: requirements/peers.txt
	$(make-venv)
	@touch $@

.PHONY: test
test: $(STAMP) ## run every test; ARGS="-m fast": those that take less than a minute together
	$(BIN)/python $(PYTEST) $(ARGS)

.PHONY: lint
lint: $(STAMP) protos-check ## check style, types, layers, the contract, its generated files and the Dockerfile
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy --config-file tools/mypy_windows.ini
	$(BIN)/lint-imports --no-logo
	$(BIN)/hadolint Dockerfile

.PHONY: deploy-check
deploy-check: $(STAMP) ## check deploy/: alert rules and their tests, the systemd unit; and the Dockerfile
	$(call debian-packages,prometheus systemd)
	promtool check rules deploy/helm/patchserve/files/alerts.yml
	promtool test rules deploy/prometheus/tests/alerts.yml
	@mkdir -p out
	sed 's|/opt/patchserve/bin/|$(CURDIR)/$(BIN)/|' deploy/systemd/patchserve.service > out/patchserve.service
	systemd-analyze verify out/patchserve.service
	@systemd-analyze security --offline=true --threshold=20 --no-pager out/patchserve.service >out/exposure.txt || \
		{ cat out/exposure.txt; exit 1; }
	$(BIN)/hadolint Dockerfile

.PHONY: format
format: $(STAMP) ## format the code and the contract, and apply ruff's fixes
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format
	cd protos && ../$(BIN)/buf format --write --path patchserve

# Measuring slows servers, so tests/e2e is not measured; `make coverage ARGS=tests` measures everything.
MEASURED := tests/unit tests/contract tests/golden tests/hostile

.PHONY: coverage
coverage: $(STAMP) ## run the unit, contract, golden and hostile tests, and print which lines and branches they reach
	$(BIN)/coverage erase
	$(BIN)/coverage run $(PYTEST) $(or $(ARGS),$(MEASURED))
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

.PHONY: test-unmeasured
test-unmeasured: $(STAMP) ## run the tests that make coverage leaves out
	$(BIN)/python $(PYTEST) $(MEASURED:%=--ignore=%) $(ARGS)

.PHONY: check
check: lint test ## lint and test

.PHONY: test-oldest
test-oldest: $(OLDEST_VENV)/.installed ## test the client with the oldest dependencies that it allows
	PYTHONPATH=client:protos/python $(OLDEST_VENV)/bin/python -m pytest tests/unit/client $(ARGS)

$(OLDEST_VENV)/.installed: requirements/oldest.txt
	$(make-venv)
	@touch $@

.PHONY: test-python
test-python: $(PYTHON_VENV)/.installed ## test on another Python: PYTHON=python3.14 (another 8 GB, .venv-python3.14)
	$(PYTHON_VENV)/bin/python $(PYTEST) $(or $(ARGS),$(MEASURED))

$(PYTHON_VENV)/.installed: requirements/dev.txt pyproject.toml
	$(make-venv)
	$(@D)/bin/python -m pip install $(QUIET) --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: test-triton
test-triton: $(STAMP) $(TRITON_VENV)/.installed ## test the Open Inference Protocol with NVIDIA's published tritonclient
	PATH="$(CURDIR)/$(BIN):$$PATH" PYTHONPATH=client:protos/python $(TRITON_VENV)/bin/python -m pytest tests/triton $(ARGS)

$(TRITON_VENV)/.installed: requirements/triton.txt
	$(make-venv)
	@touch $@

.PHONY: test-kserve
test-kserve: $(STAMP) $(KSERVE_VENV)/.installed ## test the Open Inference Protocol with KServe's published client
	PATH="$(CURDIR)/$(BIN):$$PATH" $(KSERVE_VENV)/bin/python -m pytest tests/kserve_client $(ARGS)

$(KSERVE_VENV)/.installed: requirements/kserve.txt
	$(make-venv)
	@touch $@

.PHONY: dist
dist: $(STAMP) ## build the source distribution, and from it the wheel: dist/ (needs no network)
	rm -rf dist
	$(BIN)/uv build $(if $(MAKE_TERMOUT),,--quiet) --offline --no-build-isolation --python $(BIN)/python

.PHONY: test-dist
test-dist: dist ## install the wheel in an empty environment with the client's dependencies alone, and test it
	$(PYTHON) -m venv --clear $(CLIENT_VENV)
	$(CLIENT_VENV)/bin/python -m pip install $(QUIET) --require-hashes -r requirements/client.txt
	$(CLIENT_VENV)/bin/python -m pip install $(QUIET) --no-deps --no-index dist/*.whl
	PATCHSERVE_CLIENT_VENV=$(CLIENT_VENV) $(BIN)/python -m pytest tests/distributions $(ARGS)

.PHONY: release
release: $(STAMP) ## cut VERSION=x.y.z in the files, build and test it, commit and tag it (docs/release.md)
	$(if $(VERSION),,$(error release needs VERSION=x.y.z))
	@test -z "$$(git status --porcelain)" || { echo "release: commit or stash these changes first"; git status --short; exit 1; }
	$(BIN)/python tools/release.py $(VERSION)
	$(MAKE) --no-print-directory protos-check protos-baseline test-dist
	git commit --quiet --all --message "build: release $(VERSION)"
	git tag --annotate "v$(VERSION)" --message "patchserve $(VERSION)"
	@echo "release: v$(VERSION) is committed and tagged here; docs/release.md tells how to publish it"

# To add a language: a word here, a target `client-WORD`, and a line in tests/conformance/languages.py.
LANGUAGES := node go java cpp

.PHONY: clients
clients: $(LANGUAGES:%=client-%) ## build the clients in other languages

.PHONY: test-clients
test-clients: $(STAMP) clients test-triton ## build the clients in other languages and run one test suite over all of them
	$(BIN)/python -m pytest tests/conformance $(ARGS)

.PHONY: client-node
client-node: ## build client/node (needs Node.js 20 or newer)
	cd client/node && npm ci $(if $(MAKE_TERMOUT),,--silent) --no-audit --no-fund && npm run $(if $(MAKE_TERMOUT),,--silent) build

GO_PACKAGES := golang-go golang-google-grpc-dev golang-github-golang-protobuf-1-5-dev libprotobuf-dev protobuf-compiler \
  protoc-gen-go protoc-gen-go-grpc

.PHONY: client-go
client-go: ## build client/go (needs Debian packages; root installs them)
	$(call debian-packages,$(GO_PACKAGES))
	$(MAKE) --no-print-directory -C client/go

JAVA_PACKAGES := libgeronimo-annotation-1.3-spec-java libgoogle-gson-java libgrpc-java libguava-java libnetty-java \
  libperfmark-java libpicocli-java libprotobuf-dev libprotobuf-java openjdk-17-jdk-headless protobuf-compiler \
  protobuf-compiler-grpc-java-plugin

.PHONY: client-java
client-java: ## build client/java (needs Debian packages; root installs them)
	$(call debian-packages,$(JAVA_PACKAGES))
	$(MAKE) --no-print-directory -C client/java

CPP_PACKAGES := cmake g++ libgrpc++-dev libprotobuf-dev protobuf-compiler protobuf-compiler-grpc libcli11-dev \
  nlohmann-json3-dev doctest-dev

.PHONY: client-cpp
client-cpp: ## build client/cpp (needs Debian packages; root installs them)
	$(call debian-packages,$(CPP_PACKAGES))
	cmake -S client/cpp -B client/cpp/build $(if $(MAKE_TERMOUT),,>/dev/null)
	MAKEFLAGS= cmake --build client/cpp/build --parallel 2 $(if $(MAKE_TERMOUT),,>/dev/null)

# Installs missing packages as root, otherwise says what to install.
define debian-packages
	@dpkg-query -W $(1) >/dev/null 2>&1 || { [ "$$(id -u)" = 0 ] && apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends $(1) >/dev/null; } || \
		{ echo "Install these first: apt-get install $(1)"; exit 1; }
endef

SBOM := $(AUDIT_VENV)/bin/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible

.PHONY: sbom
sbom: $(AUDIT_VENV)/.installed ## write out/sbom.json and out/sbom-cpu.json: every package of the two images (CycloneDX)
	@mkdir -p out
	$(SBOM) -o out/sbom.json requirements/server.txt
	$(AUDIT_VENV)/bin/python tools/install_lock.py requirements/server.txt --show | $(SBOM) -o out/sbom-cpu.json -

# Strict: fail if the advisory source does not know a package.
.PHONY: audit
audit: sbom ## look for known vulnerabilities in the server's packages (asks PyPI; ARGS="-s osv" asks OSV)
	@$(AUDIT_VENV)/bin/pip-audit --strict --disable-pip --require-hashes -r requirements/server.txt $(ARGS) || \
		{ echo "audit: failed. A vulnerability was found, or the advisories could not be read: see above."; exit 1; }

$(AUDIT_VENV)/.installed: requirements/audit.txt
	$(make-venv)
	@touch $@

# Resolves nothing: asks the index whether every pin has a wheel for each of these.
.PHONY: lock-check
lock-check: $(STAMP) ## check that the locks install from wheels on every Python that pyproject.toml claims
	@set -e; $(foreach python,$(PYTHONS),$(foreach platform,$(PLATFORMS),$(foreach lock,client server dev, \
		echo "requirements/$(lock).txt, Python $(python), $(platform)"; \
		$(BIN)/uv pip install --quiet --dry-run --target $(VENV)/none --only-binary :all: --require-hashes \
			--python-version $(python) --python-platform $(platform) -r requirements/$(lock).txt;)))

.PHONY: lock
lock: $(STAMP) ## pin every dependency with hashes; keeps pins that still fit (ARGS="--upgrade-package NAME")
	$(LOCK) pyproject.toml --extra server --extra gpu --extra http --extra metrics --extra int8 --extra mqtt --extra otel --extra ray --extra store --extra timm --extra evaluate --extra video --extra watch --group dev -o requirements/dev.txt
	$(LOCK) pyproject.toml --extra server --extra gpu --extra http --extra metrics --extra otel --extra store -c requirements/dev.txt -o requirements/server.txt
	$(LOCK) pyproject.toml -c requirements/dev.txt -o requirements/client.txt
	$(LOCK) --group build -c requirements/dev.txt -o requirements/build.txt
	$(LOCK) pyproject.toml --extra evaluate --extra video --extra watch --extra mqtt --group test --resolution lowest-direct -o requirements/oldest.txt
	$(LOCK) pyproject.toml --extra server --extra metrics --extra evaluate requirements/peers.in -c requirements/dev.txt -o requirements/peers.txt
	$(LOCK) requirements/protos.in -o requirements/protos.txt
	$(LOCK) pyproject.toml --group test requirements/triton.in -o requirements/triton.txt
	$(LOCK) --group test requirements/kserve.in -o requirements/kserve.txt
	$(LOCK) requirements/audit.in -o requirements/audit.txt
	@$(MAKE) --no-print-directory lock-check

.PHONY: protos
protos: $(STAMP) $(PROTOS_VENV)/.installed ## lint the contract, and generate the Python stubs, docs/protocol.md and openapi.json from it
	cd protos && ../$(BIN)/buf lint && ../$(BIN)/buf format --diff --exit-code --path patchserve
	mkdir -p $(STUBS)
	cd protos && ../$(BIN)/buf build --path patchserve/v1 --exclude-imports -o - | ../$(BIN)/python protocol_page.py > ../$(PAGE)
	$(BIN)/buf build protos --path protos/patchserve/v1 --path protos/google/rpc --exclude-imports -o - | \
		$(BIN)/python -m protos.openapi > $(OPENAPI)
	rm -rf $(STUBS)/patchserve/*/*_pb2*
	$(PROTOC) --python_out=$(STUBS) --mypy_out=quiet:$(STUBS) protos/patchserve/*/*.proto
	$(PROTOC) --grpc_python_out=$(STUBS) --mypy_grpc_out=quiet:$(STUBS) $(SERVICES)

.PHONY: protos-check
protos-check: $(STAMP) $(PROTOS_VENV)/.installed ## fail if the contract breaks its baseline, or its generated files are out of date
	cd protos && ../$(BIN)/buf breaking --path patchserve --against baseline.binpb
	@$(MAKE) --no-print-directory protos STUBS=$(PROTOS_VENV)/stubs PAGE=$(PROTOS_VENV)/protocol.md OPENAPI=$(PROTOS_VENV)/openapi.json
	diff $(PROTOS_VENV)/protocol.md $(PAGE)
	diff $(PROTOS_VENV)/openapi.json $(OPENAPI)
	diff -r -x __init__.py -x __pycache__ -x py.typed $(PROTOS_VENV)/stubs/patchserve protos/python/patchserve

.PHONY: protos-baseline
protos-baseline: $(STAMP) ## make this contract the baseline that later changes must not break (make release does it)
	cd protos && ../$(BIN)/buf build --exclude-source-info --path patchserve -o baseline.binpb

$(PROTOS_VENV)/.installed: requirements/protos.txt
	$(make-venv)
	@touch $@
