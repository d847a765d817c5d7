"""What tasks share: a run from start to end, and many runs of a transfer."""
