"""Many records in few files, on a disk or in a bucket."""
