"""Simulates a thousand servers on one store: they run the real code, on another clock and with another store."""
