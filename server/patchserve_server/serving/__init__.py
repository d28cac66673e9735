"""Use cases without a socket: admission, batching, inspection, streams, references."""
