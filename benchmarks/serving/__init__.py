"""patchserve over real gRPC beside other systems, on the same pictures, in one run: `make bench`."""
