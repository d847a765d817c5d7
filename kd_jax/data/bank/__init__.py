"""The teacher bank: what a teacher said about every crop, on disk."""
