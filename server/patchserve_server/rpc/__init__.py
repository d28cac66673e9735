"""The gRPC layer: the only code that uses grpc and the stubs."""
