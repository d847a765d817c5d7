"""Lists the models: size, cost, taps, and how far their weights are checked.

Nothing is initialised: shapes and operations come from tracing. Where timm is
installed, each of its pretrained tags is compared with the model here, see
`kd_jax.convert.tags`.

GFLOPs are those of matrix products and convolutions in one forward pass of one
image of the native size, two per multiply-add. They do not depend on the
device; `student_gflops_per_image` in the summary of a run counts everything
that XLA runs there, at the size of the run.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from jax.extend import core
from ml_collections import ConfigDict

from kd_jax import models, workdir
from kd_jax.convert import tags
from kd_jax.models import backbone
from kd_jax.preflight import operations
from kd_jax.report import tag_lists

CHECKED = frozenset(
  (
    "beit_base_patch16_224",
    "convnext_tiny",
    "convnextv2_base",
    "convnextv2_nano",
    "deit3_medium_patch16_224",
    "deit_small_distilled_patch16_224",
    "densenet121",
    "eca_resnext26ts",
    "efficientnet_b0",
    "efficientvit_b0",
    "eva02_small_patch14_224",
    "fastvit_sa12",
    "fastvit_t8",
    "gcresnext26ts",
    "gernet_s",
    "ghostnet_050",
    "hgnetv2_b0",
    "hiera_tiny_224",
    "coatnet_pico_rw_224",
    "maxvit_rmlp_pico_rw_256",
    "mixer_s16_224",
    "mobilenetv1_100",
    "mobilenetv2_100",
    "mobilenetv3_large_100",
    "mobilenetv4_conv_aa_medium",
    "mobilevit_xxs",
    "mobilevitv2_050",
    "mobilenetv4_conv_small_035",
    "mobilenetv4_hybrid_medium_075",
    "poolformer_s24",
    "regnety_016",
    "repvgg_a0",
    "repvit_m1_0",
    "resmlp_12_224",
    "resnet101",
    "resnet18",
    "resnet32ts",
    "resnet50",
    "resnet50_clip",
    "resnet51q",
    "resnetblur18",
    "resnetv2_50x1_bit",
    "resnext50_32x4d",
    "samvit_base_patch16_224",
    "seresnext50_32x4d",
    "swin_tiny_patch4_window7_224",
    "swinv2_tiny_window8_256",
    "test_byobnet",
    "test_vit3",
    "tf_efficientnet_b1",
    "tiny_vit_5m_224",
    "tinynet_e",
    "vit_base_patch16_224",
    "vit_base_patch16_clip_224",
    "vit_base_patch16_clip_quickgelu_224",
    "vit_base_patch16_siglip_224",
    "vit_dwee_patch16_reg1_gap_256",
    "vit_pe_core_tiny_patch16_384",
    "vit_small_patch14_dinov2",
    "vit_small_patch14_reg4_dinov2",
    "vit_small_patch16_dinov3",
    "vit_small_patch16_rope_mixed_ape_224",
    "vit_small_plus_patch16_dinov3_qkvb",
    "vit_tiny_patch16_224",
    "vit_tiny_r_s16_p8_224",
    "vitamin_small_224",
    "wide_resnet50_2",
    "xcit_nano_12_p16_224",
  )
)
"""Models whose outputs are compared with those of timm for equal weights; the
others of a family run the same code with other numbers."""

_TITLES = (
  "model",
  "parameters (M)",
  "GFLOPs",
  "features",
  "input",
  "taps",
  "compared with timm",
  "tags",
)


@dataclasses.dataclass(frozen=True)
class Row:
  """What the table says about a model.

  Attributes:
    name: of the model.
    parameters: their number.
    flops: of one image, see above.
    width: of the tap 'pooled'.
    input_size: (channels, height, width).
    taps: their names.
    checked: whether its outputs are compared with timm's.
    tags: number of timm's pretrained tags that load; -1 if it is not known.
  """

  name: str
  parameters: int
  flops: int
  width: int
  input_size: tuple[int, ...]
  taps: tuple[str, ...]
  checked: bool
  tags: int = -1

  def cells(self) -> tuple[str, ...]:
    """As people read it, in the order of the titles."""
    return (
      self.name,
      f"{self.parameters / 1e6:.2f}",
      f"{self.flops / 1e9:.2f}",
      str(self.width),
      " x ".join(map(str, self.input_size[1:])),
      ", ".join(short(self.taps)),
      "yes" if self.checked else "its family",
      "" if self.tags < 0 else str(self.tags),
    )


def run(config: ConfigDict, where: str | Path) -> list[Row]:
  """Prints the models whose names match; writes `config.output` if it is set.

  Args:
    config: see configs/models.py.
    where: not looked at.

  Raises:
    ValueError: no name matches, or the file cannot be written.
  """
  del where
  pattern, output = str(config.match), str(config.output)
  how = str(config.tags)
  backbone.one_of("config.tags", how, ("", "count", "list"))
  if "://" in output:
    raise ValueError(
      f"config.output is {output!r}; the list is written to a file of "
      "this machine, give its path"
    )
  names = fnmatch.filter(models.list_models(), pattern)
  if not names:
    raise ValueError(
      f"no model matches {pattern!r}. Use '*' and '?', as in "
      "--config.match='resnet*'."
    )
  known = _known(how)
  rows, compared = _rows(names, known)
  for name in sorted(fnmatch.filter(known.keys() - {*names}, pattern)):
    compared += tags.check(name, known[name])
  for line in _about_tags(how, compared):
    print(line)
  if output:
    _write(Path(output), rows, compared)
  return rows


def _known(how: str) -> dict[str, list[str]]:
  """Tags by architecture, where they are wanted and timm is there."""
  if how and tags.available():
    return tags.known()
  if how:
    print(
      "timm's pretrained tags are not counted: that needs timm, "
      "pip install 'kd_jax[torch]'"
    )
  return {}


def _rows(
  names: Sequence[str], known: Mapping[str, Sequence[str]]
) -> tuple[list[Row], list[tags.Tag]]:
  """Rows, printed as they come, and the tags of these models."""
  widths = [max(map(len, [*names, _TITLES[0]])), 14, 8, 8, 9, 60, 18, 0]
  print(_line(_TITLES, widths))
  rows: list[Row] = []
  compared: list[tags.Tag] = []
  for name in names:
    found = list(tags.check(name, known.get(name, ())))
    good = sum(not tag.problem for tag in found) if known else -1
    size = row(name, models.create_model(name))
    rows.append(dataclasses.replace(size, tags=good))
    print(_line(rows[-1].cells(), widths), flush=True)
    compared += found
  return rows, compared


def _about_tags(how: str, compared: Sequence[tags.Tag]) -> list[str]:
  if not compared:
    return []
  shown = [tag for tag in compared if models.exists(tag.architecture)]
  if how == "count":
    shown = [tag for tag in shown if tag.problem]
  return [*tag_lists.lines(shown), tag_lists.total(compared, tags.version())]


def row(name: str, model: backbone.Backbone) -> Row:
  """Traces a model at its native input size."""
  size = model.input_size
  image = jax.ShapeDtypeStruct((1, *size[1:], size[0]), np.float32)
  variables = backbone.variable_shapes(model)
  traced, taps = jax.make_jaxpr(model.apply, return_shape=True)(
    variables, image
  )
  leaves = jax.tree.leaves(variables["params"])
  return Row(
    name=name,
    parameters=sum(math.prod(leaf.shape) for leaf in leaves),
    flops=flops(traced.jaxpr),
    width=taps["pooled"].shape[-1],
    input_size=size,
    taps=tuple(taps),
    checked=name in CHECKED,
  )


def flops(jaxpr: core.Jaxpr) -> int:
  """Operations of the matrix products and convolutions of a traced function.

  Those with padding included, as papers count; see `preflight.operations`.
  """
  return operations.count(jaxpr, padded=True)


def short(taps: Iterable[str]) -> list[str]:
  """Names of taps, with runs of numbers as 'stage1-4'."""
  groups: dict[str, list[str]] = {}
  for name in taps:
    groups.setdefault(name.rstrip("0123456789"), []).append(name)
  return [
    names[0] if len(names) == 1 else f"{names[0]}-{names[-1][len(stem) :]}"
    for stem, names in sorted(groups.items())
  ]


def _line(cells: Iterable[str], widths: Iterable[int]) -> str:
  return "  ".join(
    f"{c:<{w}}" for c, w in zip(cells, widths, strict=True)
  ).rstrip()


def _write(
  path: Path, rows: Iterable[Row], compared: Sequence[tags.Tag]
) -> None:
  lines = [_TITLES, ("-",) * len(_TITLES), *(row.cells() for row in rows)]
  text = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
  if compared:
    total = tag_lists.total(compared, tags.version())
    text += f"\n{_TAGS}\n{total}\n\n{tag_lists.markdown(compared)}"
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    workdir.write(path, f"{_HEAD}\n{text}")
  except OSError as error:
    raise ValueError(
      f"{path} cannot be written ({error.strerror}); give another file with "
      "--config.output"
    ) from error


_HEAD = """\
# Models

Written by `python -m kd_jax.main --config configs/models.py
--config.output=docs/models.md`. Names, weights and preprocessing are timm's.

- GFLOPs: matrix products and convolutions of one forward pass of one image of
  the input size in the table, two per multiply-add.
- features: width of the tap `pooled`, without a classifier the output.
- taps: `model.apply(variables, images)` returns them by name.
- compared with timm: "yes" where outputs for equal weights are compared with
  those of timm in the tests; "its family" where another member's are, which
  runs the same code with other numbers.
- tags: how many of timm's pretrained tags load, see the end of this page.

`kd_jax.create_model("resnet50")` takes these names.
`kd_jax.load_pretrained("resnet50.a1_in1k")` takes timm's names with a tag and
loads them from the hub, `load_pretrained("resnet50", FILE)` from a file.
"""

_TAGS = """\
## Pretrained tags

Of these, timm's own model has the tensors that the model here asks for, with
the settings of the tag: classes, image size, pooling. `load_pretrained` takes
the two names with a dot, as in "resnet50.a1_in1k"; `--config.tags=list` prints
them all, and why others do not load.
"""
