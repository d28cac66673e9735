"""Metrics for Prometheus: a listener that counts, readings, and the port where they are scraped. The extra metrics."""
