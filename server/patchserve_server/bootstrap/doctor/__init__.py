"""Says whether a server with these settings can start here, and what to do where not. Nothing is changed."""
