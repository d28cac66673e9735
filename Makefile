# patchserve: everything that a developer types. `make help` lists it.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STUBS := protos/python
STAMP := $(VENV)/.installed
PROTOC := PATH="$(CURDIR)/.venv-protos/bin:$$PATH" .venv-protos/bin/python -m grpc_tools.protoc -Iprotos

.PHONY: help
help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

.PHONY: setup
setup: $(STAMP) ## make .venv with everything locked (about 6 GB, most of it torch)
$(STAMP): requirements/dev.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: lock
lock: ## resolve and pin every dependency again, with hashes
	$(BIN)/uv pip compile -q --no-header --generate-hashes --universal --python-version 3.11 pyproject.toml --extra server --extra video --group dev -o requirements/dev.txt
	$(BIN)/uv pip compile -q --no-header --generate-hashes --universal --python-version 3.11 pyproject.toml --extra server -c requirements/dev.txt -o requirements/server.txt
	$(BIN)/uv pip compile -q --no-header --generate-hashes --universal --python-version 3.11 requirements/protos.in -o requirements/protos.txt

.PHONY: protos
protos: .venv-protos/.installed ## lint the contract and generate the Python stubs again
	cd protos && ../$(BIN)/buf lint && ../$(BIN)/buf format --diff --exit-code
	rm -rf $(STUBS)/patchserve/v1/*_pb2*
	$(PROTOC) --python_out=$(STUBS) --mypy_out=quiet:$(STUBS) protos/patchserve/v1/*.proto
	$(PROTOC) --grpc_python_out=$(STUBS) --mypy_grpc_out=quiet:$(STUBS) protos/patchserve/v1/service.proto

.venv-protos/.installed: requirements/protos.txt
	$(PYTHON) -m venv .venv-protos
	.venv-protos/bin/python -m pip install --quiet --require-hashes -r requirements/protos.txt
	@touch $@
