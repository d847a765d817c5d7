"""Draws the figures of docs/concepts.md, each from a computation.

  python -m benchmarks.concepts [--steps 100] [--out docs]

alignment: a small ResNet learns scikit-learn's ten digits from labels; the
principal directions of its pooled features on the training images, and what
power-temperature scaling does to them. bank: a photograph of scikit-learn with
the boxes of its training views, and the bytes that a bank stores per view.
stages: the maps of a ResNet-50 and a ResNet-18 at 224 pixels, by shape
inference, and the taps that three methods compare. The same arguments give the
same figures on the same machine; it takes about half a minute of one CPU core.
"""

from __future__ import annotations

import dataclasses
import io
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from PIL import Image

from benchmarks import _command_line
from benchmarks import _digits as recipes
from kd_jax.align import basis as basis_lib
from kd_jax.align import pts, svd
from kd_jax.codecs import aligned, raw
from kd_jax.data.preprocess import Preprocess
from kd_jax.data.sources import digits
from kd_jax.methods import kdep, scalekd, stagewise
from kd_jax.models import create_model
from kd_jax.report.plots import COLORS
from kd_jax.tasks import pretrain
from kd_jax.types import Record

STUDENT = 48  # channels of the small student of benchmarks/stagewise.py
TEMPERATURE, POWER = 0.1, 3.0  # KDEP's
VIEWS, SIZE, SEED = 5, 224, 3
TEACHER, PUPIL = "resnet50", "resnet18"
CODECS = {
  "2048 channels, float32": raw.Codec(),
  "512 directions, float16": aligned.Codec(dtype="float16"),
  "512 directions, int8": aligned.Codec(),
}
_WIDTH, _DPI, _INK = 4.6, 140, "#333333"


@dataclasses.dataclass(frozen=True)
class Spectrum:
  """What an alignment keeps, and how even its targets are.

  Attributes:
    share: of the variance, per direction, in descending order.
    before: standard deviation of the kept directions.
    after: the same behind power-temperature scaling.
  """

  share: Float[np.ndarray, " d"]
  before: Float[np.ndarray, " k"]
  after: Float[np.ndarray, " k"]


def spectrum(features: Float[np.ndarray, "n d"], width: int) -> Spectrum:
  """The principal directions of features, and the first `width` as targets.

  Args:
    features: of a teacher, a row per image.
    width: channels of the student.

  Raises:
    ValueError: fewer rows than directions.
  """
  state = basis_lib.init(features.shape[1])
  found = basis_lib.finish(
    basis_lib.update(state, jnp.asarray(features), jnp.ones(len(features)))
  )
  parts = found.artifact(width)
  z = svd.project(jnp.asarray(features), parts["mean"], parts["basis"])
  scaled = pts.power_temperature(z, TEMPERATURE, POWER)
  energy = np.square(found.singular_values)
  return Spectrum(
    share=energy / energy.sum(),
    before=np.std(np.asarray(z), axis=0),
    after=np.std(np.asarray(scaled), axis=0),
  )


def teacher_features(steps: int) -> Float[np.ndarray, "n d"]:
  """What a small network says of the digits that it learned.

  Args:
    steps: of its training, 64 images each.
  """
  config = recipes.supervised(recipes.TEACHER, steps)
  config.data = recipes.digits("train", ())
  config.student = recipes.student(recipes.TEACHER, num_classes=10)
  config.eval.judge = recipes.digits("test", ())
  config.eval.evals = ()
  with tempfile.TemporaryDirectory() as folder:
    found = pretrain.run(config, Path(folder))
  assert found is not None
  preprocess = Preprocess(16, interpolation="bilinear", crop_pct=1.0)
  source = digits.Source(split="train")
  images = np.stack([preprocess.eval(source[i]) for i in range(len(source))])
  taps = found.student.apply(found.variables, images.astype(np.float32) / 255)
  return np.asarray(taps["feature"])


def photograph() -> UInt8[np.ndarray, "h w 3"]:
  """The flower that comes with scikit-learn."""
  from sklearn.datasets import load_sample_image  # slow to import

  return load_sample_image("flower.jpg")


def views(
  photo: UInt8[np.ndarray, "h w 3"],
) -> tuple[UInt8[np.ndarray, "m s s 3"], Int[np.ndarray, "m 7"]]:
  """Random training views of a photograph, and their geometry."""
  preprocess = Preprocess(image_size=112, num_crops=VIEWS)
  record: Record = {"image": photo, "label": -1, "id": 0}
  visit = preprocess.train(record, lambda k: np.random.default_rng((SEED, k)))
  return visit["image"], visit["geometry"]


def bytes_per_crop(channels: int = 2048) -> dict[str, int]:
  """{what is stored: bytes} of one crop, without the 14 of its geometry.

  Args:
    channels: of the teacher's pooled feature.
  """
  widths = {"feature": (channels,)}
  return {
    name: sum(
      math.prod(shape) * np.dtype(dtype).itemsize
      for shape, dtype in codec.arrays(widths).values()
    )
    for name, codec in CODECS.items()
  }


def tap_shapes(name: str) -> dict[str, tuple[int, ...]]:
  """{tap: shape for one image}; nothing is computed.

  Args:
    name: of a network.
  """
  image = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32)
  run = create_model(name).init_with_output
  taps, _ = jax.eval_shape(run, jax.random.key(0), image)
  return {tap: x.shape[1:] for tap, x in taps.items()}


def compared() -> dict[str, tuple[tuple[str, str], ...]]:
  """{method: pairs of (student's tap, teacher's tap)}, from their classes.

  ScaleKD's first pair names the tap whose place the student's map takes at the
  beginning of the teacher's tail.
  """
  ((own,), (theirs,)) = kdep.TAPS["feature"]
  stages = [term for term in stagewise.Method().terms if term != "ce"]
  needs = scalekd.Method(target="stage4").phases()[0].needs
  target, entry = needs.teacher
  first, last = needs.student
  return {
    "KDEP": ((own, theirs),),
    "stage-wise": tuple((stage, stage) for stage in stages),
    "ScaleKD": ((first, entry), (last, target)),
  }


def draw_alignment(found: Spectrum) -> bytes:
  """A PNG: spectrum, share kept, and both sides of the scaling."""
  figure, (top, middle, bottom) = _figure(6.6, (1, 1, 1))
  index = np.arange(1, len(found.share) + 1)
  width, summed = len(found.before), 100 * np.cumsum(found.share)
  top.semilogy(index, 100 * found.share, color=COLORS[0])
  _label(top, "The variance lies in a few directions", "% of variance")
  middle.plot(index, summed, color=COLORS[2])
  middle.set_ylim(0, 105)
  kept = f"The first {width} of {len(index)} keep {summed[width - 1]:.2f} %"
  _label(middle, kept, "% kept")
  for axes in (top, middle):
    axes.axvspan(0, width, color=COLORS[1], alpha=0.12, lw=0)
    axes.set_xlim(0, len(index))
  pairs = (("as projected", found.before), ("after scaling", found.after))
  for color, (name, values) in zip(COLORS, pairs, strict=False):
    bottom.semilogy(index[:width], values / values[0], color=color, label=name)
  bottom.legend(frameon=False, fontsize=9)
  bottom.set_xlim(0, width)
  _label(bottom, "Scaling evens out the targets", "deviation / first")
  bottom.set_xlabel("direction")
  return _png(figure)


def draw_bank(photo: UInt8[np.ndarray, "h w 3"]) -> bytes:
  """A PNG: the boxes of a photograph's views, the views, bytes per view."""
  figure, (top, middle, bottom) = _figure(6.3, (3.1, 1, 1.2))
  images, geometry = views(photo)
  top.imshow(photo)
  for color, (y, x, height, width, *_) in zip(COLORS, geometry, strict=False):
    box = Rectangle(
      (x, y), width, height, fill=False, ec=color, lw=2.5, clip_on=False
    )
    top.add_patch(box)
  top.set_title("A photograph and the boxes of its views", fontsize=10)
  strip, side = np.full((120, 128 * VIEWS - 8, 3), 255, np.uint8), 112
  middle.imshow(strip)
  for k, image in enumerate(images):
    x = 128 * k
    middle.imshow(image, extent=(x, x + side, side, 0))
    frame = Rectangle((x, 0), side, side, fill=False, ec=COLORS[k], lw=2.5)
    middle.add_patch(frame)
  middle.set(xlim=(-3, 128 * VIEWS - 11), ylim=(side + 3, -3))
  middle.set_title("What teacher and student see (no pixels kept)", fontsize=10)
  for axes in (top, middle):
    axes.set_axis_off()
  _bars(bottom, bytes_per_crop())
  return _png(figure)


def _bars(axes: Axes, sizes: Mapping[str, int]) -> None:
  """Bars with their number, and their name above them."""
  for row, (name, size) in enumerate(sizes.items()):
    axes.barh(row, size, 0.42, color="#8593a3")
    axes.text(0, row - 0.27, name, va="bottom", fontsize=9, color=_INK)
    axes.text(size, row, f" {size:,}", va="center", fontsize=9, color=_INK)
  axes.set(xlim=(0, 1.2 * max(sizes.values())), ylim=(len(sizes) - 0.6, -0.85))
  axes.set_title("Stored per view, in bytes", fontsize=10)
  axes.set_axis_off()


def draw_stages() -> bytes:
  """A PNG: the stages of two networks, and lines between compared taps."""
  figure, (axes,) = _figure(5.8, (1,))
  rows = ("stem", "stage1", "stage2", "stage3", "stage4", "feature")
  height = {tap: -1.25 * row for row, tap in enumerate(rows)}
  for x, name, title in (
    (0, TEACHER, "teacher: ResNet-50"),
    (6.4, PUPIL, "student: ResNet-18"),
  ):
    axes.text(x + 1.8, 0.75, title, ha="center", weight="bold", fontsize=10)
    shapes = tap_shapes(name)
    for tap in rows:
      _stage(axes, (x, height[tap]), tap, shapes[tap])
      if tap != rows[-1]:
        _arrow(axes, (x + 1.8, height[tap] - 0.42), (0, -0.41), "#999999")
  for color, (method, pairs) in zip(COLORS, compared().items(), strict=False):
    _method(axes, method, color, [(height[s], height[t]) for s, t in pairs])
  axes.legend(
    loc="upper center", bbox_to_anchor=(0.5, 0.02), ncols=3, frameon=False
  )
  axes.set(xlim=(-0.1, 10.1), ylim=(height["feature"] - 0.55, 1.2))
  axes.set_axis_off()
  return _png(figure)


def _stage(
  axes: Axes, place: tuple[float, float], tap: str, shape: Sequence[int]
) -> None:
  """A rounded box: name and map size."""
  x, y = place
  style = "round,pad=0,rounding_size=0.15"
  axes.add_patch(
    FancyBboxPatch(
      (x, y - 0.42), 3.6, 0.84, style, fc="#eef2f6", ec="#8593a3", lw=1
    )
  )
  text = f"{tap}\n{' × '.join(map(str, shape))}"
  axes.text(x + 1.8, y, text, ha="center", va="center", fontsize=9)


def _method(
  axes: Axes, name: str, color: str, pairs: Sequence[tuple[float, float]]
) -> None:
  """Arrows from the student's taps to the teacher's."""
  axes.plot([], [], color=color, lw=2, label=name)
  shift = -0.22 if name == "ScaleKD" else 0.12
  for own, theirs in pairs:
    start = (6.35, own + shift)
    # ScaleKD enters below the tap that it replaces.
    enters = name == "ScaleKD" and (own, theirs) == pairs[0]
    end = (1.95, theirs - 0.62) if enters else (3.65, theirs + shift)
    step = (end[0] - start[0], end[1] - start[1])
    _arrow(axes, start, step, color, lw=2)


def _arrow(
  axes: Axes,
  start: tuple[float, float],
  step: tuple[float, float],
  color: str,
  lw: float = 1.2,
) -> None:
  end = (start[0] + step[0], start[1] + step[1])
  look = {"arrowstyle": "-|>", "color": color, "lw": lw, "shrinkA": 0}
  axes.annotate("", end, start, arrowprops={**look, "shrinkB": 0})


def _figure(
  height: float, ratios: Sequence[float]
) -> tuple[Figure, Sequence[Axes]]:
  """A narrow white figure with axes below each other."""
  figure = Figure((_WIDTH, height), dpi=_DPI, layout="constrained")
  figure.set_facecolor("white")
  FigureCanvasAgg(figure)
  axes = figure.subplots(len(ratios), height_ratios=ratios, squeeze=False)
  return figure, axes[:, 0]


def _label(axes: Axes, title: str, ylabel: str) -> None:
  axes.set_title(title, fontsize=10)
  axes.set_ylabel(ylabel)
  axes.grid(color="#dddddd", lw=0.6)
  axes.spines[["top", "right"]].set_visible(False)


def _png(figure: Figure) -> bytes:
  """A palette of 128 colours: a photograph would be large otherwise."""
  drawn, small = io.BytesIO(), io.BytesIO()
  figure.savefig(drawn, format="png")
  image = Image.open(drawn).convert("RGB")
  image.quantize(128, dither=Image.Dither.NONE).save(
    small, "PNG", optimize=True
  )
  return small.getvalue()


def main(arguments: Sequence[str] | None = None) -> None:
  """Writes the three figures."""
  parser = _command_line.parser(__doc__, steps=100)
  parser.add_argument("--out", type=Path, default=Path("docs"))
  args = parser.parse_args(arguments)
  found = spectrum(teacher_features(args.steps), STUDENT)
  drawn = {
    "alignment": draw_alignment(found),
    "bank": draw_bank(photograph()),
    "stages": draw_stages(),
  }
  for name, png in drawn.items():
    path = args.out / f"concepts_{name}.png"
    path.write_bytes(png)
    print(f"{path}: {len(png):,} bytes")
  for width in (1, 4, 9, 16, STUDENT):
    print(f"{width} directions keep {100 * found.share[:width].sum():.2f} %")
  for name, std in (("projected", found.before), ("scaled", found.after)):
    print(f"{name}: first / last deviation {std[0] / std[-1]:.1f}")


if __name__ == "__main__":
  main()
