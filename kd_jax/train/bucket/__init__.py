"""Checkpoints in gs:// and s3:// buckets."""
