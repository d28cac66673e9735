"""Simulates a thousand servers on one store: the code that keeps references in step, with another clock and another store."""
