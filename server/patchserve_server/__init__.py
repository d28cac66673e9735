"""A gRPC inference server for visual anomaly detection with PatchCore."""
