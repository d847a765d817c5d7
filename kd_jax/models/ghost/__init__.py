"""GhostNets."""
