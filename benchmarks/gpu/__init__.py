"""What the server makes of a GPU: ratios to the bare network, and how they change with the work."""
