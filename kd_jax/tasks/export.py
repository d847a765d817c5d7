"""Writes the student of a run alone, without what the trainer needs.

  timm/       model.safetensors and config.json, as timm's hub stores them
  flax/       the same variables by their paths here, see `convert.save_flax`
  stablehlo/  model.bin: images in, vectors out, weights inside
  README.md   what it is, where it came from, how to load it

A `format` writes a folder of its name instead, with the student under the names
of a library of detectors, see `convert.save_layout`. Of a finished detector, a
folder of the task 'detect', it is stablehlo/, detector.json and README.md; its
program has both stages, suppression and masks inside.

The format 'onnx' is onnx/model.onnx, a function as in stablehlo/, and its
README.md, see `convert.onnx_graph`.

With `fused`, branches are merged (RepVGG, MobileOne, RepViT, FastViT) in all of
them, and programs have no batch normalisation behind a convolution.

`stablehlo/model.bin` is StableHLO, written by `jax.export`: it is part of JAX,
runs on CPU, GPU and TPU, and can be read for six months of JAX releases at
least.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import export
from ml_collections import ConfigDict

from kd_jax import convert, disk, workdir
from kd_jax.buckets import spool
from kd_jax.build import networks
from kd_jax.convert import checkpoint
from kd_jax.convert.onnx_graph import program as onnx_program
from kd_jax.models import fold, fuse
from kd_jax.models.backbone import Backbone
from kd_jax.report import detector_card, model_card
from kd_jax.report.run import summary
from kd_jax.train.bucket import checkpoints
from kd_jax.transfer.detection import files, program

ONNX = "onnx"
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
_HEADS = "heads/config.json"  # of a detector, see `detection.files`


def run(config: ConfigDict, where: str | Path) -> Path | str:
  """Exports the student of the run `config.workdir`.

  Args:
    config: see configs/export.py.
    where: not looked at.

  Returns:
    The folder with the result, or its URL.

  Raises:
    ValueError: there is no such run, it has no weights yet or they are
      damaged, or the folder cannot be written.
  """
  del where
  canvas = tuple(config.canvas)
  wanted = _Wanted(config.format, config.form, canvas, config.fused)
  with contextlib.ExitStack() as mounts:
    source = _run_folder(mounts, config.workdir)
    output = config.output or source / "export"
    target = mounts.enter_context(spool.mounted(output))
    try:
      name = _export(wanted, source, target)
    except OSError as error:
      raise ValueError(
        f"the folder {target} cannot be written ({error.strerror}); give "
        "another one with --config.output"
      ) from error
    summary.say(f"{name} of {spool.address(source)} -> {spool.address(target)}")
    spool.push(target)
    place = spool.address(target)
  return place if "://" in place else target


class _Wanted(NamedTuple):
  """See configs/export.py."""

  format: str
  form: str
  canvas: tuple[int, ...]
  fused: bool


def _export(wanted: _Wanted, source: Path, target: Path) -> str:
  """Writes what is asked for; returns the name of the student."""
  plain = not (wanted.format or (source / _HEADS).is_file())
  detector = (source / _HEADS).is_file()
  if wanted.fused and not (plain or wanted.format == ONNX and not detector):
    raise ValueError(
      "fused merges the student of a pre-training for timm, Flax, StableHLO and"
      " ONNX; leave it out for detectors and formats of other libraries"
    )
  if wanted.format == ONNX and detector:
    raise ValueError(
      "the format onnx is of students; a detector is written as StableHLO: "
      "leave format out, or name the run that trained its student"
    )
  if wanted.format == ONNX:
    return _onnx(wanted.fused, source, target)
  if wanted.format:
    return _layout(wanted, source, target)
  if (source / _HEADS).is_file():
    return _detector(wanted.canvas, source, target)
  return _alone(wanted.fused, source, target)


class _Student(NamedTuple):
  """What is written, and where it came from."""

  name: str
  model: Backbone
  variables: Mapping[str, Any]
  size: int
  recipe: dict[str, Any]
  about: dict[str, Any]


def _prepared(fused: bool, source: Path) -> _Student:
  """The student with the run's preprocessing, merged if that is asked for."""
  recipe, about = _papers(source)
  model, variables = _student(source, recipe)
  size = about["image_size"]
  model = model.clone(
    interpolation=about["interpolation"],
    crop_pct=about["crop_pct"],
    crop_mode=about.get("crop_mode", "center"),  # older runs do not say
    input_size=(3, size, size),
  )
  if fused and fuse.can_merge(model):
    model, variables = fuse.merge(model, variables)
  name = recipe["student"]["name"]
  return _Student(name, model, variables, size, recipe, about)


def _alone(fused: bool, source: Path, target: Path) -> str:
  """Writes the student of a pre-training in all of our formats."""
  name, model, variables, size, recipe, about = _prepared(fused, source)
  convert.save_timm(model, variables, target / "timm", name=name)
  # What was written, as others will read it.
  model, variables = convert.load_pretrained(name, target / "timm")
  convert.save_flax(model, variables, target / "flax", name=name)
  program = stablehlo(model, variables, size, folded=fused)
  _write_program(target, program)
  options = _read(target / "timm" / checkpoint.CONFIG)["model_args"]
  text = model_card.text(model, name, recipe, about, options)
  workdir.write(target / "README.md", text)
  return name


def _onnx(fused: bool, source: Path, target: Path) -> str:
  """Writes the student as ONNX, and how to call it."""
  name, model, variables, size, *_ = _prepared(fused, source)
  folder = target / ONNX
  one = _of_one(model, variables, folded=fused)
  onnx_program.save(one, size, folder / "model.onnx")
  text = model_card.onnx(name, size, _outputs(model))
  workdir.write(folder / "README.md", text)
  return f"{name} for ONNX"


def _layout(wanted: _Wanted, source: Path, target: Path) -> str:
  """Writes the student, or the backbone of a detector, for a library."""
  if (source / _HEADS).is_file():
    name = _read(source / _HEADS)["student"]
    model, variables = convert.load_pretrained(name, source / "student")
  else:
    recipe, _ = _papers(source)
    name = recipe["student"]["name"]
    model, variables = _student(source, recipe)
  convert.save_layout(
    model,
    variables,
    target / wanted.format,
    name=name,
    layout=wanted.format,
    form=wanted.form,
  )
  return f"{name} for {wanted.format}"


def _detector(canvas: tuple[int, ...], source: Path, target: Path) -> str:
  """Writes a detector as a program."""
  model, variables, about = files.load(source)
  canvas = canvas or tuple(about["canvas"])
  if len(canvas) != 2 or not all(
    isinstance(side, int) and side > 0 for side in canvas
  ):
    raise ValueError(
      f"config.canvas is {canvas}; it is the height and the width of the "
      "images in pixels, such as --config.canvas='(800,1344)', or ()"
    )
  _write_program(target, program.stablehlo(model, variables, canvas, PLATFORMS))
  facts = {"classes": about["classes"], "canvas": list(canvas)}
  workdir.write(target / "detector.json", json.dumps(facts, indent=2))
  text = detector_card.text(model, about["student"], canvas, about["classes"])
  workdir.write(target / "README.md", text)
  return f"detector on {about['student']}"


def _write_program(target: Path, data: bytes) -> None:
  (target / "stablehlo").mkdir(parents=True, exist_ok=True)
  disk.write(target / "stablehlo" / "model.bin", data)


def stablehlo(
  model: Backbone,
  variables: Mapping[str, Any],
  size: int,
  *,
  folded: bool = False,
) -> bytes:
  """The forward pass in evaluation mode, with its weights, for any batch.

  Args:
    model: the network.
    variables: its weights, which become constants of the program.
    size: of the images, in pixels.
    folded: put batch normalisation into the convolutions, see `models.fold`.

  Returns:
    What `jax.export.deserialize` reads: a function of float32 RGB images
    (n, size, size, 3) in [0, 1] that returns {'pooled': (n, d)}, and 'logits'
    if there is a classifier.
  """
  one = _of_one(model, variables, folded=folded)
  # Mapped over the images: models may count them, which a symbol cannot do.
  (n,) = export.symbolic_shape("n")
  images = jax.ShapeDtypeStruct((n, size, size, 3), np.float32)
  program = export.export(jax.jit(jax.vmap(one)), platforms=PLATFORMS)(images)
  return bytes(program.serialize())


def _outputs(model: Backbone) -> tuple[str, ...]:
  return ("pooled", "logits") if model.num_classes else ("pooled",)


def _of_one(
  model: Backbone, variables: Mapping[str, Any], *, folded: bool
) -> Callable[[jax.Array], dict[str, jax.Array]]:
  """A function of one image, weights inside."""
  context = contextlib.nullcontext
  if folded:
    variables, context = fold.fold(model, variables)

  def one(image: jax.Array) -> dict[str, jax.Array]:
    with context():
      taps = model.apply(variables, image[None], train=False)
    return {name: taps[name][0] for name in _outputs(model)}

  return one


def _run_folder(mounts: contextlib.ExitStack, path: str) -> Path:
  if not path:
    raise ValueError(
      "no run is named; set --config.workdir to the folder of one"
    )
  folder = mounts.enter_context(spool.mounted(path))
  spool.pull(folder)
  if not any((folder / n).is_file() for n in ("config.json", _HEADS)):
    raise ValueError(
      f"{path} is not the folder of a run: there is no {path}/config.json. "
      "Set --config.workdir to what --workdir was."
    )
  return folder


def _read(path: Path) -> dict[str, Any]:
  try:
    found = json.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError) as error:
    raise ValueError(
      f"{spool.address(path)} cannot be read ({error}); a run writes it when "
      "it starts to train"
    ) from error
  return found


def _papers(source: Path) -> tuple[dict[str, Any], dict[str, Any]]:
  """Config and summary of a run that has a student."""
  recipe, about = (_read(source / f"{n}.json") for n in ("config", "summary"))
  if "student" not in about:
    raise ValueError(
      f"{source}/summary.json says nothing of a student; export reads the runs "
      "of the task 'pretrain', and folders of finished detectors"
    )
  return recipe, about


def _student(
  source: Path, recipe: Mapping[str, Any]
) -> tuple[Backbone, Mapping[str, Any]]:
  """The finished student, or that of the newest checkpoint."""
  finished = source / "student"
  if finished.is_dir():
    return convert.load_pretrained(recipe["student"]["name"], finished)
  state = checkpoints.read_newest(source / "checkpoints")
  if state is None:
    raise ValueError(
      f"{source} has neither a student nor a checkpoint yet; the first one "
      f"comes after {recipe['checkpoint']['every']} steps"
    )
  summary.say(f"the run is not finished: weights of step {state['step']}")
  params = (state["ema"] or state["params"])["student"]
  stats = state["stats"]["student"]
  collections = {"params": params, "batch_stats": stats}
  model = networks.student(ConfigDict(recipe))
  return model, {k: v for k, v in collections.items() if v}
