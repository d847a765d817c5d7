"""What a teacher said about every crop of every image, on disk or in a bucket.

`storage` says how it is laid out.
"""

from kd_jax.data.bank.reader import Bank, exists, read_header
from kd_jax.data.bank.storage import Header
from kd_jax.data.bank.writer import Writer, difference

__all__ = [
  "Bank",
  "Header",
  "Writer",
  "difference",
  "exists",
  "read_header",
]
