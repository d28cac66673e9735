"""Promises of a real server under load, faults and invalid input, at full length: `make reliability`."""
