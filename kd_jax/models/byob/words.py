"""The strings that describe these networks.

A network is a stem and stages; each is a string of its `blocks`, words of the
form 'KIND_dD_cC[_sS][_gG][_bB][_kK][_nN][_x][_se][_tT][_wW][_pP]' with a space
between them:

  KIND  rep     3x3 and 1x1 branches (arXiv:2101.03697)
        one     N branches of the window K, and a 1x1 one (arXiv:2206.04040)
        basic   two convolutions of the window 3
        bottle  1x1, 3x3, 1x1; 'x' adds a second 3x3
        edge    3x3, 1x1
        dark    1x1, 3x3
  mobilevit   attention over patches (arXiv:2110.02178)
  mobilevit2  the same of linear cost (arXiv:2206.02680)
  d, c, s   repeats, channels, stride of the first
  g         channels per group of a 3x3 convolution; 0 is one group
  b         width between the convolutions over that of the output
  se        squeeze-and-excitation in this block
  t, w, p   of 'mobilevit': blocks of attention, their width (0 counts by b),
            and the side of a patch
"""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

_WORD = re.compile(
  r"(?P<kind>rep|one|basic|bottle|edge|dark|mobilevit2?)_d(?P<repeat>[1-9]\d*)"
  r"_c(?P<features>[1-9]\d*)(_s(?P<stride>[12]))?(_g(?P<group>\d+))?"
  r"(_b(?P<ratio>\d+(\.\d+)?))?(_k(?P<size>[13579]))?(_n(?P<branches>[1-9]))?"
  r"(?P<extra>_x)?(?P<se>_se)?(_t(?P<blocks>[1-9]\d*))?(_w(?P<inner>\d+))?"
  r"(_p(?P<patch>[1-9]\d*))?"
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
    blocks: of attention.
    inner: their width; 0 counts by `ratio`.
    patch: side of a patch.
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
  blocks: int
  inner: int
  patch: int


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
      "[_x][_se][_tT][_wW][_pP] in this order: KIND one of rep, one, basic, "
      "bottle, edge, dark, mobilevit, mobilevit2, S 1 or 2, K odd; "
      "'bottle_d2_c256_s1_g32_b0.25'"
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
    blocks=int(match["blocks"] or 2),
    inner=int(match["inner"] or 0),
    patch=int(match["patch"] or 8),
  )
