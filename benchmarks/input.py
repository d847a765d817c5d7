"""Images per second of the input pipeline, next to what others do.

  python -m benchmarks.input [--images DIR] [--seconds 2]

Random resized crops to 224 pixels and flips, on real photographs of ImageNet's
size (pieces of scikit-learn's two, JPEG, mean 500x375 and 107 KB) or on the
JPEGs in DIR. 'camera' is one of them enlarged to 4000x3000 pixels, 'scaled' the
same with preprocess.dct_scaling. 'kept' has decoded the images in an earlier
epoch (input.keep_gib). PIL is Image.open().convert('RGB') and
torchvision's crop with PIL's bilinear filter; tf.image, where TensorFlow is
installed, is tf.data with decode_and_crop_jpeg and tf.image.resize, which does
not antialias. 'canvas' is
a host that leaves cropping to the device, 'crop_resize' the device's part.

The first table is of one thread, cases in turns; 'core' is by processor time,
'wall' by the clock; its ratios are medians over the rounds, by processor time.
The second is of `pipeline.train_batches` on all cores.

Measured on one core (taskset -c 1) of a 2-core AMD EPYC that was shared and
busy, 30 rounds of 0.3 s, the files that the first line describes; views per
second of processor time, and medians (10th to 90th percentile) over the rounds:

  PIL 396; folder x1 673, x4 1903; folder bilinear x1 527; canvas x1 667;
  tf.image 1106, which neither antialiases nor decodes what it does not show
  folder x1 / PIL 1.76 (1.57 to 2.09), 1.44 (1.30 to 1.52) in another run
  folder x4 / folder x1 2.69 (2.32 to 2.91), 2.66 (2.40 to 2.82)
  folder bilinear x1 / PIL 1.32 (1.11 to 1.70), 1.05 (0.94 to 1.14)
  folder canvas x1 / PIL 1.67 (1.25 to 2.01), 1.37 (1.23 to 1.48)

An idle run with all rows is in docs/data.md (1.72 and 2.70, over 20 rounds).
With 5 rounds a run said 1.19 for folder x1 / PIL: use many. crop_resize makes
about 80 views a second and core of this processor; it is meant for
accelerators, where it has not been run.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import itertools
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import jax
import numpy as np
from PIL import Image

from benchmarks._input_peers import Case, by_pil, by_tensorflow
from kd_jax.data import examples
from kd_jax.data.augment import canvas, crops
from kd_jax.data.formats import tfds_write
from kd_jax.data.formats.kept import Kept
from kd_jax.data.pipeline import train_batches
from kd_jax.data.preprocess import Preprocess
from kd_jax.data.reading import Reading
from kd_jax.data.sources import digits, folder, synthetic, tfds
from kd_jax.interfaces import DataSource

CROPS = (1, 4, 8)
PACKAGES = ("jax", "grain", "numpy", "pillow", "opencv-python-headless")
SIDE = 512  # of the canvas
PIL, TF = "PIL", "tf.image"
CANVAS, DEVICE = "folder canvas", "crop_resize"
CAMERA, SCALED = "camera", "camera scaled"
KEPT = "folder kept"
RATIOS = (
  ("folder x1", PIL),
  ("folder bilinear x1", PIL),
  ("folder canvas x1", PIL),
  ("folder x1", TF),
  ("folder x4", "folder x1"),
  ("folder x8", "folder x1"),
  ("camera scaled x1", "camera x1"),
  (f"{KEPT} x1", "folder x1"),
  (f"{KEPT} x4", "folder x4"),
)


class Times(NamedTuple):
  """Seconds per view, a value per round.

  Attributes:
    cpu: of all threads of this process.
    wall: by the clock.
  """

  cpu: list[float]
  wall: list[float]


def photographs(place: Path, count: int) -> None:
  """Writes `count` different JPEGs, pieces of two real photographs."""
  from sklearn.datasets import load_sample_image  # slow to import

  originals = [load_sample_image(f"{name}.jpg") for name in ("china", "flower")]
  rng = np.random.default_rng(0)
  for i in range(count):
    image = originals[i % 2]
    box = crops.random_box(
      *image.shape[:2], rng, scale=(0.5, 0.85), ratio=(4 / 3, 4 / 3)
    )
    height = int(rng.integers(350, 401))
    piece = crops.resize(
      crops.crop(image, box), height, height * 4 // 3, interpolation="bicubic"
    )
    piece = crops.mirror(piece) if rng.random() < 0.5 else piece
    Image.fromarray(piece).save(
      place / f"{i:04d}.jpg", quality=95, subsampling=0
    )


def enlarged(place: Path) -> Path:
  """Writes a JPEG of 4000x3000 pixels, into a folder that listings skip."""
  first = next(file for file in sorted(place.iterdir()) if _is_jpeg(file))
  found = place / ".camera"
  found.mkdir()
  pixels = np.asarray(Image.open(first).convert("RGB").resize((4000, 3000)))
  noise = np.random.default_rng(0).normal(0, 3, pixels.shape)  # of the sensor
  noisy = np.clip(pixels + noise, 0, 255).astype(np.uint8)
  Image.fromarray(noisy).save(found / "large.jpg", quality=90)
  return found


def gather(images: Path, place: Path, count: int) -> None:
  """Copies `count` JPEGs from below `images`.

  Raises:
    ValueError: there are not so many.
  """
  # The first ones that come: sorting millions would take minutes.
  found = list(itertools.islice(filter(_is_jpeg, images.rglob("*")), count))
  if len(found) < count:
    raise ValueError(
      f"--images={images} holds {len(found)} JPEGs (.jpg, .jpeg), fewer than "
      f"--count={count}; name another directory, or lower --count"
    )
  for i, file in enumerate(found):
    shutil.copyfile(file, place / f"{i:04d}.jpg")


def _is_jpeg(file: Path) -> bool:
  return file.suffix.lower() in (".jpg", ".jpeg") and file.is_file()


def preprocess(name: str, size: int, num_crops: int) -> Preprocess:
  """How a case makes its views."""
  if name == "digits":
    return Preprocess(
      image_size=size, augment="shift", shift=2, num_crops=num_crops
    )
  if name == CANVAS:
    return Preprocess(
      image_size=size,
      num_crops=num_crops,
      canvas=max(SIDE, size),
      train_interpolation="bilinear",
    )
  if name == SCALED:
    return Preprocess(image_size=size, num_crops=num_crops, dct_scaling=True)
  exact = "bilinear" if name == "folder bilinear" else "area"
  return Preprocess(
    image_size=size, num_crops=num_crops, train_interpolation=exact
  )


def sources(place: Path) -> Mapping[str, DataSource]:
  """Name of a case -> where its records come from."""
  files = folder.Source(str(place))
  large = folder.Source(str(enlarged(place)))
  tfds_write.write({"train": files}, "photographs", str(place / ".tfds"))
  return {
    "folder": files,
    "folder bilinear": files,
    CANVAS: files,
    CAMERA: large,
    SCALED: large,
    "tfds": tfds.Source("photographs", "train", str(place / ".tfds")),
    "synthetic": synthetic.Source(),
    "digits": digits.Source(),
  }


def ours(
  source: DataSource, prepare: Preprocess, kept: Kept | None = None
) -> Case:
  """A source and what this package makes of its records."""
  fetch = examples.Train(examples.Decoded(source, kept), prepare, 0)

  def run(i: int) -> Mapping[str, np.ndarray]:
    return fetch.visit(*divmod(i, len(source)))

  return Case(prepare.num_crops, run)


def on_device(source: DataSource, size: int, batch: int) -> Case:
  """The device's part of 'canvas', on what already lies there."""
  prepare = preprocess(CANVAS, size, 1)
  rows = [ours(source, prepare).run(i) for i in range(batch)]
  image = np.stack([row["image"] for row in rows])
  geometry = np.concatenate([row["geometry"] for row in rows])
  arguments = jax.device_put(
    (image, geometry[:, :4].astype(np.float32), geometry[:, 4] > 0)
  )

  def run(_: int) -> jax.Array:
    return jax.block_until_ready(
      canvas.crop_resize(*arguments, size=size, interpolation="bilinear")
    )

  return Case(batch, run)


def contenders(
  every: Mapping[str, DataSource], size: int, batch: int
) -> dict[str, Case]:
  """All cases of one thread."""
  files = every["folder"]
  found = {PIL: by_pil(files, size)}
  if importlib.util.find_spec("tensorflow"):
    found[TF] = by_tensorflow(files, size)
  for name, num_crops in itertools.product(every, CROPS):
    prepare = preprocess(name, size, num_crops)
    found[f"{name} x{num_crops}"] = ours(every[name], prepare)
  for num_crops in CROPS:
    case = ours(files, preprocess("folder", size, num_crops), Kept(2**30))
    for row in range(len(files)):
      case.run(row)  # the epoch that decodes
    found[f"{KEPT} x{num_crops}"] = case
  found[DEVICE] = on_device(files, size, batch)
  return found


def measure(
  cases: Mapping[str, Case], seconds: float, rounds: int
) -> dict[str, Times]:
  """Runs all cases in turns, `seconds` each in total."""
  times = {name: Times([], []) for name in cases}
  calls = {name: itertools.count() for name in cases}
  for case in cases.values():
    case.run(0)  # compiles and fills caches
  for _ in range(rounds):
    for name, case in cases.items():
      wall, cpu, made = time.perf_counter(), time.process_time(), 0
      while made == 0 or time.perf_counter() - wall < seconds / rounds:
        case.run(next(calls[name]))
        made += case.views
      times[name].cpu.append((time.process_time() - cpu) / made)
      times[name].wall.append((time.perf_counter() - wall) / made)
  return times


def all_cores(
  source: DataSource, prepare: Preprocess, seconds: float
) -> tuple[float, float]:
  """(views per second, views per second of processor time) of batches."""
  # A batch has as many views whatever the number of crops.
  views = max(CROPS) * max(1, min(8, len(source) // max(CROPS)))
  threads = max(8, len(os.sched_getaffinity(0)))
  with train_batches(
    source,
    prepare,
    batch_size=views,
    seed=0,
    reading=Reading(num_threads=threads, prefetch=threads),
  ) as batches:
    for _ in range(threads + 1):  # built before the clock starts
      next(batches)
    wall, cpu, made = time.perf_counter(), time.process_time(), 0
    while made == 0 or time.perf_counter() - wall < seconds:
      next(batches)
      made += views
    elapsed = time.perf_counter() - wall
    return made / elapsed, made / (time.process_time() - cpu)


def ratio(times: Mapping[str, Times], fast: str, slow: str) -> float:
  """How many times as many views per processor second, median of rounds."""
  rounds = zip(times[slow].cpu, times[fast].cpu, strict=True)
  return statistics.median(s / f for s, f in rounds)


def machine() -> str:
  """Processor, cores and versions."""
  info = Path("/proc/cpuinfo")
  lines = info.read_text().splitlines() if info.exists() else []
  names = [x.split(": ")[-1] for x in lines if x.startswith("model name")]
  versions = [f"{p} {importlib.metadata.version(p)}" for p in PACKAGES]
  device = jax.devices()[0].device_kind
  cores = len(os.sched_getaffinity(0))
  name = names[0] if names else "unknown processor"
  return f"{name}, {cores} cores; device {device}; {', '.join(versions)}"


def thread_table(
  cases: Mapping[str, Case], seconds: float, rounds: int
) -> None:
  """Measures and prints one thread, and the ratios."""
  times = measure(cases, seconds, rounds)
  print(f"{'one thread':20s} images/s core  views/s core  views/s wall")
  for name, case in cases.items():
    cpu, wall = (1 / statistics.median(t) for t in times[name])
    # Of these a call makes views of different images.
    images = cpu if name in (TF, DEVICE) else cpu / case.views
    print(f"{name:20s}  {images:12.0f}  {cpu:12.0f}  {wall:12.0f}")
  for fast, slow in RATIOS:
    if slow in cases:
      print(f"{fast} / {slow}  {ratio(times, fast, slow):.2f}", flush=True)


def batch_table(
  every: Mapping[str, DataSource], size: int, seconds: float
) -> None:
  """Measures and prints `train_batches`."""
  print(f"{'all cores':20s}  views/s wall  views/s core")
  several = [name for name in every if len(every[name]) >= max(CROPS)]
  for name, num_crops in itertools.product(several, CROPS):
    prepare = preprocess(name, size, num_crops)
    wall, cpu = all_cores(every[name], prepare, seconds)
    case = f"{name} x{num_crops}"
    print(f"{case:20s}  {wall:12.0f}  {cpu:12.0f}", flush=True)


def main(argv: Sequence[str] | None = None) -> None:
  """Prints the machine, the tables and the ratios."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--images", type=Path, help="directory of JPEGs")
  parser.add_argument("--seconds", type=float, default=2.0, help="per case")
  parser.add_argument("--rounds", type=int, default=20)
  parser.add_argument("--count", type=int, default=64, help="of photographs")
  parser.add_argument("--size", type=int, default=224, help="of a view")
  parser.add_argument("--batch", type=int, default=32, help="of crop_resize")
  args = parser.parse_args(argv)
  if args.count < max(CROPS):
    raise ValueError(f"--count={args.count}; it must be at least {max(CROPS)}")
  cv2.setNumThreads(1)
  print(machine())
  with tempfile.TemporaryDirectory() as name:
    place = Path(name)
    if args.images:
      gather(args.images, place, args.count)
    else:
      photographs(place, args.count)
    size = sum(file.stat().st_size for file in place.iterdir())
    print(f"{args.count} JPEGs, {size / args.count / 1000:.0f} KB on average")
    every = sources(place)
    cases = contenders(every, args.size, args.batch)
    thread_table(cases, args.seconds, args.rounds)
    batch_table(every, args.size, args.seconds)


if __name__ == "__main__":
  main()
