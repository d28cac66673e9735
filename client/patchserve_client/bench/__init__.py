"""Open-loop load on a running server: how many images a second it inspects within a latency objective."""
