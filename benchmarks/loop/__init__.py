"""What a call costs the main thread of the server, measured without a network: `benchmarks/bench_loop.py`."""
