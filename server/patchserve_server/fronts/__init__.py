"""Several front processes and one engine process: the link between them, and what the fronts share."""
