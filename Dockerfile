# syntax=docker/dockerfile:1
# The server with its weights inside, so that it starts without a network. docs/deployment/install.md says more.
#   docker build -t patchserve:cuda .                                  for a GPU, with CUDA's libraries
#   docker build --build-arg TORCH_INDEX=URL -t patchserve .           for a CPU: 4 GB smaller
# TORCH_INDEX is an index of torch's wheels for CPUs. The lock has not their hashes (tools/install_lock.py): put them in
# requirements/torch-cpu.txt, and they are checked. BACKBONE is wide_resnet50_2 (the build downloads torchvision's weights
# and checks their sum) or efficientnet_lite2 (which comes as a package).
#   docker run --publish 127.0.0.1:50051:50051 --publish 127.0.0.1:8080:8080 \
#     --read-only --tmpfs /tmp --volume references:/var/lib/patchserve patchserve
# Left alone it serves gRPC and HTTP (the page: http://localhost:8080) in plain text to whoever --publish lets in. With
# TLS and tokens (the health check wants a certificate that names localhost too):
#   docker run --publish 50051:50051 --publish 8080:8080 --volume "$PWD/certs:/certs:ro" \
#     --volume references:/var/lib/patchserve --health-cmd "patchserve health --ca /certs/ca.pem" \
#     patchserve serve --http-port 8080 --tls-cert /certs/server.pem --tls-key /certs/server.key \
#     --auth-tokens /certs/tokens

# The digest of the index of all platforms, so that a build tomorrow starts from the same system. Dependabot renews it.
FROM python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b AS base

FROM base AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python3.11 -m venv /opt/build && python3.11 -m venv /opt/patchserve
# The slow layers first: they change with the locks only.
COPY requirements requirements
COPY tools/install_lock.py tools/
ARG TORCH_INDEX=
RUN /opt/build/bin/python -m pip install --require-hashes -r requirements/build.txt \
    && if [ -n "$TORCH_INDEX" ] && [ -f requirements/torch-cpu.txt ]; then hashes=requirements/torch-cpu.txt; fi \
    && /opt/patchserve/bin/python tools/install_lock.py requirements/server.txt \
        --torch-index "$TORCH_INDEX" --torch-hashes "${hashes:-}"
# Headers and tests of torch: 190 MB that no server reads.
RUN torch=/opt/patchserve/lib/python3.11/site-packages/torch && rm -rf "$torch/test" "$torch/include" \
    && find "$torch/bin" -type f ! -name torch_shm_manager -delete
COPY LICENSE README.md pyproject.toml ./
COPY protos protos
COPY client client
COPY server server
RUN /opt/build/bin/python -m hatchling build --target wheel --directory /wheels \
    && /opt/patchserve/bin/python -m pip install --no-deps --no-index /wheels/*.whl
ARG BACKBONE=wide_resnet50_2
ENV TORCH_HOME=/opt/weights
RUN mkdir -p "$TORCH_HOME" && /opt/patchserve/bin/python -c \
    "import sys; from patchserve_server.bootstrap.process import configure_process; configure_process(); \
    from patchserve_server.engine.backbone.architectures import BACKBONES; BACKBONES[sys.argv[1]].pretrained()" "$BACKBONE"

FROM base
ARG BACKBONE=wide_resnet50_2
ENV PATH=/opt/patchserve/bin:$PATH \
    PATCHSERVE_BACKBONE=${BACKBONE} \
    PATCHSERVE_HOST=0.0.0.0 \
    PATCHSERVE_STORE=/var/lib/patchserve/references \
    TORCH_HOME=/opt/weights \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility,video
RUN useradd --uid 10001 --home-dir /var/lib/patchserve --create-home --shell /usr/sbin/nologin patchserve
COPY --from=build /opt/patchserve /opt/patchserve
COPY --from=build /opt/weights /opt/weights
USER 10001
VOLUME /var/lib/patchserve
EXPOSE 50051 8080 9464
# SIGTERM: no new work, streams get a notice, what was accepted is finished. Give it `docker stop --time 35`.
STOPSIGNAL SIGTERM
HEALTHCHECK --start-period=60s --interval=10s --timeout=5s CMD ["patchserve", "health"]
ENTRYPOINT ["patchserve-server"]
# Without tokens, HTTP answers for localhost and addresses only: not for the name of a site that points here.
CMD ["serve", "--insecure", "--http-port", "8080", "--http-allowed-hosts", "localhost"]
