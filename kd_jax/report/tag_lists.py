"""What the list of models says about timm's pretrained tags."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kd_jax.convert.tags import Tag


def total(tags: Sequence[Tag], of: str) -> str:
  """How many load, in a sentence.

  Args:
    tags: all that were compared, those of unknown architectures too.
    of: what names them, such as 'timm 1.0.31'.
  """
  good = sum(not tag.problem for tag in tags)
  return (
    f"{good:,} of {len(tags):,} pretrained tags of {of} load, each compared "
    "with timm's own model by the names and shapes of its tensors."
  )


def lines(tags: Iterable[Tag]) -> list[str]:
  """A line per tag: its name, and why it does not load."""
  return [
    f"{tag.name}  {f'does not load: {tag.problem}' if tag.problem else 'loads'}"
    for tag in tags
  ]


def markdown(tags: Iterable[Tag]) -> str:
  """The tags that load, an item per architecture."""
  found: dict[str, list[str]] = {}
  for tag in tags:
    if not tag.problem:
      found.setdefault(tag.architecture, []).append(tag.tag)
  return "".join(
    f"- `{name}`: {', '.join(sorted(those))}\n"
    for name, those in sorted(found.items())
  )
