"""Generated from protos/patchserve/v1 by `make protos`. Never edited by hand."""
