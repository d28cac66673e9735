"""The tables of docs/accuracy.md: `make accuracy DATA=folder`, or one of them with ARGS=NAME."""
