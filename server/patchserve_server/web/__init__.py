"""The HTTP face: the only code that knows HTTP. It stands beside `rpc` and never goes through it."""
