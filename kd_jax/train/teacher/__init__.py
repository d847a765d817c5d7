"""The teacher of a run, and the statistics of what it says."""
