"""The contract of patchserve as Python: generated modules live in patchserve.v1."""
