"""The strings that describe these networks.

A network is a stem and stages; each is a string of its `blocks`, words of the
form 'KIND_dD_cC[_sS][_gG][_bB][_kK][_nN][_x][_se]' with a space between them:

  KIND  rep     3x3 and 1x1 branches (arXiv:2101.03697)
        one     N branches of the window K, and a 1x1 one (arXiv:2206.04040)
        basic   two convolutions of the window 3
        bottle  1x1, 3x3, 1x1; 'x' adds a second 3x3
        edge    3x3, 1x1
        dark    1x1, 3x3
  d, c, s   repeats, channels, stride of the first
  g         channels per group of a 3x3 convolution; 0 is one group
  b         width between the convolutions over that of the output
  se        squeeze-and-excitation in this block
"""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

_WORD = re.compile(
  r"(?P<kind>rep|one|basic|bottle|edge|dark)_d(?P<repeat>[1-9]\d*)"
  r"_c(?P<features>[1-9]\d*)(_s(?P<stride>[12]))?(_g(?P<group>\d+))?"
  r"(_b(?P<ratio>\d+(\.\d+)?))?(_k(?P<size>[13579]))?(_n(?P<branches>[1-9]))?"
  r"(?P<extra>_x)?(?P<se>_se)?"
)


class Spec(NamedTuple):
  """Blocks of a stage.

  Attributes:
    kind: see above.
    repeat: number of blocks.
    features: number of output channels.
    stride: of the first block.
    group: channels per group; 0 is one group.
    ratio: width between the convolutions, relative.
    size: width of the window.
    branches: of 'one'.
    extra: a second 3x3 convolution of 'bottle'.
    se: squeeze-and-excitation here.
  """

  kind: str
  repeat: int
  features: int
  stride: int
  group: int
  ratio: float
  size: int
  branches: int
  extra: bool
  se: bool


@functools.cache
def decode(stage: str) -> tuple[Spec, ...]:
  """What a string of `blocks` says.

  Raises:
    ValueError: one of its words is no block, or it has none.
  """
  return tuple(map(_decode, stage.split() or [""]))


def _decode(word: str) -> Spec:
  match = _WORD.fullmatch(word)
  if match is None:
    raise ValueError(
      f"blocks has {word!r}; a block is KIND_dD_cC[_sS][_gG][_bB][_kK][_nN]"
      "[_x][_se] in this order: KIND one of rep, one, basic, bottle, edge, "
      "dark, S 1 or 2, K odd; 'bottle_d2_c256_s1_g32_b0.25'"
    )
  return Spec(
    kind=match["kind"],
    repeat=int(match["repeat"]),
    features=int(match["features"]),
    stride=int(match["stride"] or 1),
    group=int(match["group"] or 0),
    ratio=float(match["ratio"] or 1),
    size=int(match["size"] or 3),
    branches=int(match["branches"] or 1),
    extra=bool(match["extra"]),
    se=bool(match["se"]),
  )
