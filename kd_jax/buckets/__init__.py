"""What lies in gs:// and s3:// buckets; docs/storage.md tells the whole."""
