"""The one call: images, a teacher and a student in, a student out."""

from __future__ import annotations

import os
from pathlib import Path

import jax
from ml_collections import ConfigDict

from kd_jax import resolve
from kd_jax.door import arguments, recipe, written
from kd_jax.report.run import summary
from kd_jax.tasks import export, pretrain


def distill(  # noqa: PLR0913
  images: str | os.PathLike[str],
  teacher: str | os.PathLike[str],
  student: str = "resnet18",
  out: str | os.PathLike[str] = "runs/mine",
  *,
  method: str = "kdep",
  steps: int | None = None,
  image_size: int | None = None,
  batch_size: int | None = None,
  teacher_weights: str | os.PathLike[str] = "",
  seed: int = 0,
) -> Path:
  """Pre-trains a student on images without labels, and exports it.

  The same call goes on with a run that was stopped. `out` gets config.py,
  which `python -m kd_jax.main` runs, and everything that this writes.

  Args:
    images: a folder of images, sorted into folders or not.
    teacher: a timm name with or without a tag, one of
      `kd_jax.door.teachers.ALIASES`, or a folder with model.safetensors and
      config.json.
    student: a name that `kd-jax models` lists.
    out: the folder of the run.
    method: 'kdep', 'scalekd' or 'stagewise'.
    steps: updates; None: a full run, on a CPU what takes a minute.
    image_size: side in pixels; None: by the images, the networks, the machine.
    batch_size: None: by the number of images and the memory.
    teacher_weights: a file, a folder or a hub name; 'random' for an untrained
      teacher; '': those that the teacher's name stands for.
    seed: of everything random.

  Returns:
    `out`; the student is in its folders student/ and export/.

  Raises:
    ValueError: anything that cannot work, before the first step.
    Stopped: SIGTERM or Ctrl-C while it trained; the state is saved.
  """
  counts = {"steps": steps, "image_size": image_size, "batch_size": batch_size}
  wishes = {
    "images": arguments.text("images", images),
    "teacher": arguments.text("teacher", teacher),
    "student": student,
    "method": method,
    "teacher_weights": arguments.text("teacher_weights", teacher_weights),
    "seed": arguments.seed(seed),
    **{k: arguments.count(k, v) for k, v in counts.items() if v is not None},
  }
  target = arguments.folder("out", arguments.text("out", out))
  arguments.outside(target, wishes["images"])
  plan = recipe.plan(resolve.construct(recipe.Wishes, wishes, "distill"))
  config = plan.choice.config()
  if jax.process_index() == 0:
    file = written.keep(config.to_dict(), target, plan.lines)
    summary.say("\n".join((*plan.lines, f"config: {file}", "")))
  pretrain.run(config, target)
  export_run(target)
  return target


def export_run(
  run: str | os.PathLike[str],
  out: str = "",
  format: str = "",
  *,
  fused: bool = False,
) -> None:
  """Writes the student of a run for other libraries, see docs/export.md.

  Args:
    run: its folder.
    out: where to; '': export/ in that folder.
    format: 'onnx', 'detectron2', 'mmdetection', 'torchvision', or '' for
      timm, Flax and StableHLO.
    fused: merge branches and batch normalisation into convolutions.

  Raises:
    ValueError: there is no such run or format, or `out` cannot be written.
  """
  place = arguments.text("run", run)
  if "://" not in place and not Path(place).expanduser().is_dir():
    raise ValueError(
      f"there is no run {place!r}; name the folder that 'distill' wrote to"
    )
  known = [export.ONNX, *resolve.names("convert.layouts", "LAYOUT")]
  if format and format not in known:
    raise ValueError(
      f"format is {format!r}; there are {', '.join(known)}, and without one "
      "timm, Flax and StableHLO"
    )
  if out and "://" not in out:
    arguments.folder("out", out)
  fields = {"task": "export", "workdir": place, "output": out}
  rest = {"format": format, "form": "", "canvas": (), "fused": fused}
  export.run(ConfigDict({**fields, **rest}), "")
