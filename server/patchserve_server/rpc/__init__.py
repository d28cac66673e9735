"""The gRPC face: the only code that knows grpc and the stubs."""
