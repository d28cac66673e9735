"""Generated from protos/patchserve/kserve by `make protos`. Never edited by hand."""
