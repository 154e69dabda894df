"""ARI: client and typed messages."""
