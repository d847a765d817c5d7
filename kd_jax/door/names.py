"""What people mistype."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def near(word: str, allowed: Iterable[str]) -> str:
  """'near are a, b and c', or that nothing is."""
  close = difflib.get_close_matches(word, list(allowed), n=5, cutoff=0.4)
  return f"near are {', '.join(close)}" if close else "nothing is near it"
