"""The strings that describe mobile networks.

A network is a stem convolution and groups of blocks; each group is a string
of its `arch_def`, as in timm: blocks 'KIND_rR_kK_sS[_eE]_cC[...]' with a space
between them.

  KIND  ds   depthwise, pointwise (arXiv:1704.04861)
        dsa  'ds' with a last activation and without a shortcut
        ir   pointwise, depthwise, pointwise (arXiv:1801.04381)
        er   full convolution, pointwise (arXiv:2104.00298)
        cn   full convolution with activation; a shortcut only with '_skip'
        uir  'ir' with one more depthwise convolution in front, of the window
             aA; a window 0 leaves its convolution out (arXiv:2404.10518)
        mqa  attention of hH heads of dD channels, see `multi_query`; keys and
             values are those of every V-th pixel with vV
  r, k, s, e, c   repeats, window, stride of the group, expansion, channels
  fcN   the expansion of 'er' counts from N channels
  seX   squeeze-and-excitation (arXiv:1709.01507) of the width X times that of
        the block's input (MobileNetV3: of its depthwise convolution)
  nre, nr6, nhs, nsw   another activation: ReLU, ReLU6, hard-swish, SiLU
  noskip, skip   without, or with, a shortcut

Such strings are timm's, in the order given here.
"""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

_CODES = {"re": "relu", "r6": "relu6", "hs": "hard_swish", "sw": "silu"}
WIDE = ("ir", "er", "uir")
"""Kinds of blocks that expand."""
_BLOCK = re.compile(
  r"(?P<kind>dsa?|ir|er|cn|uir|mqa)_r(?P<repeat>[1-9]\d*)"
  r"(_a(?P<start>\d*[13579]|0))?_k(?P<size>\d*[13579]|0)(_h(?P<heads>\d+))?"
  r"_s(?P<stride>[12])(_v(?P<kv_stride>[12]))?(_d(?P<dim>\d+))?"
  r"(_e(?P<expansion>\d+(\.\d+)?))?_c(?P<features>[1-9]\d*)"
  r"(_fc(?P<base>[1-9]\d*))?(_se(?P<se>0\.\d+|1))?"
  r"(_n(?P<act>re|r6|hs|sw))?(_(?P<skip>skip|noskip))?"
)


class Spec(NamedTuple):
  """Blocks of an `arch_def`.

  Attributes:
    kind: 'ds', 'ir', 'er', 'cn', 'uir' or 'mqa'.
    repeat: number of blocks.
    size: width of the window.
    stride: stride of the group, used by its first block.
    expansion: width between the convolutions over that of the input.
    features: number of output channels, before scaling.
    base: what `expansion` is relative to, before scaling; 0 is the input.
    se: width of squeeze-and-excitation, relative; 0 leaves it out.
    act: activation; '' is the network's.
    last_act: whether it also follows the last convolution.
    skip: have a shortcut where the shapes agree.
    start: width of the first window of 'uir'; 0 leaves it out.
    heads: of 'mqa'.
    head_dim: channels of one of them.
    kv_stride: stride of its keys and values.
  """

  kind: str
  repeat: int
  size: int
  stride: int
  expansion: float
  features: int
  base: int
  se: float
  act: str
  last_act: bool
  skip: bool
  start: int
  heads: int
  head_dim: int
  kv_stride: int


@functools.cache
def decode(group: str) -> tuple[Spec, ...]:
  """What a string of an `arch_def` says.

  Raises:
    ValueError: one of its words is no block, or it has none.
  """
  return tuple(map(_decode, group.split() or [""]))


def _decode(word: str) -> Spec:
  match = _BLOCK.fullmatch(word)
  if match is None or not _agrees(match):
    raise ValueError(
      f"arch_def has {word!r}; a block is KIND_rR_kK_sS[_eE]_cC[_fcN][_seX]"
      "[_nA][_skip|_noskip] in this order: KIND one of ds, dsa, ir, er, cn, K "
      "odd, S 1 or 2, A one of re, r6, hs, sw; 'ir_r2_k3_s2_e6_c24_se0.25'. "
      "Or uir_rR_aA_kK_sS_eE_cC, or mqa_rR_kK_hH_s1[_vV]_dD_cC"
    )
  kind, skip = match["kind"], match["skip"]
  wide = kind in WIDE
  return Spec(
    kind="ds" if kind == "dsa" else kind,
    repeat=int(match["repeat"]),
    size=int(match["size"]),
    stride=int(match["stride"]),
    expansion=float(match["expansion"] or 1) if wide else 1.0,
    features=int(match["features"]),
    base=int(match["base"] or 0),
    se=float(match["se"] or 0),
    act=_CODES.get(match["act"], ""),
    last_act=kind in ("dsa", "cn"),
    skip=skip == "skip" if kind == "cn" else kind != "dsa" and skip != "noskip",
    start=int(match["start"] or 0),
    heads=int(match["heads"] or 0),
    head_dim=int(match["dim"] or 0),
    kv_stride=int(match["kv_stride"] or 1),
  )


def _agrees(match: re.Match[str]) -> bool:
  """Whether the parts of a word are those of its kind."""
  kind, attends = match["kind"], ("heads", "dim")
  if kind != "uir" and (match["start"] or match["size"] == "0"):
    return False
  if kind == "mqa":
    return all(match[k] for k in attends) and match["stride"] == "1"
  return not any(match[k] for k in (*attends, "kv_stride"))
