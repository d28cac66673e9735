"""Throughput of patchserve over real gRPC beside other systems, on the same images, in one run: `make bench`."""
