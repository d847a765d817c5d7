"""Any model of timm as a teacher: PyTorch on the host, called from the step.

For architectures that have no port here: it needs `torch` and `timm`, runs on
the CPU in float32 whatever `dtype` says, beside one device only, and keeps
that waiting. `online` is the fast way for what `kd_jax.models` has.

Taps, maps as NHWC:
  logits   what the model returns.
  pooled   `forward_head(..., pre_logits=True)`.
  feature  the average over the pixels of what enters the activation that ends
    `forward_features`; 'pooled' where these end otherwise (transformers,
    ConvNeXt), or where pooling is no average.
  stem, stage1..stage4  what `forward_intermediates` yields, as maps without
    class tokens: five are the stem and the stages, of any other number the
    stages are the last of each quarter, of fewer than four there are none.

A step that reads both vectors and maps runs the teacher twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from kd_jax import interfaces, resolve, trees
from kd_jax.convert import checkpoint, read_checkpoint
from kd_jax.convert.pretrained import FACTS
from kd_jax.types import STAGES, Array, Batch, Teacher, Variables

if TYPE_CHECKING:
  import torch

Arrays = dict[str, np.ndarray]

Shapes = Mapping[str, tuple[int, ...]]
"""{tap: shape of one image}."""

_PRETRAINED = ("", "pretrained")
_SHOWN = 8


@dataclasses.dataclass(frozen=True)
class Facts:
  """How the teacher's images are prepared, see `Backbone`."""

  interpolation: str
  crop_pct: float
  input_size: tuple[int, ...]
  crop_mode: str = dataclasses.field(default="center", repr=False)


class Network:
  """The PyTorch side: NHWC arrays in, NHWC arrays out.

  Args:
    model: a timm model in evaluation mode.
    mean: subtracted from RGB images in [0, 1].
    std: divides them.
  """

  def __init__(
    self, model: torch.nn.Module, mean: Sequence[float], std: Sequence[float]
  ) -> None:
    self._model = model
    self._mean, self._std = (
      np.array(v, np.float32).reshape(3, 1, 1) for v in (mean, std)
    )
    # The step may call for vectors and maps from two threads at once.
    self._lock = threading.Lock()
    self._entering: list[torch.Tensor] = []
    self._watched = False
    self._specs: dict[tuple[str, tuple[int, ...]], Shapes] = {}

  def vectors(self, images: Array | np.ndarray) -> Arrays:
    """'feature', 'pooled' and 'logits' of (n, h, w, 3) images."""
    with self._lock, _inference():
      x = self._tensor(images)
      if not self._watched:
        self._watch(x[:1])
      self._entering.clear()
      features = self._model.forward_features(x)
      pooled = self._model.forward_head(features, pre_logits=True)
      logits = self._model.forward_head(features)
      before = [entering.mean((2, 3)) for entering in self._entering]
    taps = {"feature": (before or [pooled])[0], "pooled": pooled}
    return {k: _array(v) for k, v in {**taps, "logits": logits}.items()}

  def maps(self, images: Array | np.ndarray) -> Arrays:
    """'stem' and 'stage1' to 'stage4' where the model has them."""
    if not hasattr(self._model, "forward_intermediates"):
      return {}
    with self._lock, _inference():
      found = self._model.forward_intermediates(
        self._tensor(images), intermediates_only=True, output_fmt="NCHW"
      )
    return {
      name: _array(found[i].permute(0, 2, 3, 1))
      for name, i in stages_of(len(found)).items()
    }

  def specs(self, part: str, size: tuple[int, ...]) -> Shapes:
    """{tap: shape of one image} of 'vectors' or 'maps'; asked once per size.

    Raises:
      ValueError: the network does not run on images of this size, or yields
        no vector per image.
    """
    if (part, size) not in self._specs:
      self._specs[part, size] = self._probe(part, size)
    return self._specs[part, size]

  def _probe(self, part: str, size: tuple[int, ...]) -> Shapes:
    image = np.zeros((1, *size), np.float32)
    try:
      taps = getattr(self, part)(image)
    # Models refuse in many ways: assertions, runtime and shape errors.
    except Exception as error:
      first = (str(error).splitlines() or [""])[0]
      raise ValueError(
        f"the teacher does not run on images of {size[0]} x {size[1]} pixels "
        f"({type(error).__name__}: {first}). Set "
        "--config.preprocess.image_size to what it was trained with, or "
        "--config.teacher.overrides.img_size where it has that option."
      ) from error
    shapes = {name: tap.shape for name, tap in taps.items()}
    if part == "vectors" and {len(shape) for shape in shapes.values()} != {2}:
      raise ValueError(
        f"the teacher does not yield one vector per image, but {shapes}. Set "
        "--config.teacher.overrides.global_pool, or choose another teacher."
      )
    return shapes

  def _tensor(self, images: Array | np.ndarray) -> torch.Tensor:
    import torch

    nchw = np.asarray(images, np.float32).transpose(0, 3, 1, 2)
    return torch.from_numpy((nchw - self._mean) / self._std)

  def _watch(self, x: torch.Tensor) -> None:
    """From now on `_entering` gets what the last activation reads."""
    last = _last_activation(self._model, x)
    if last is not None:

      def keep(_: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        self._entering[:] = [args[0].clone()]  # of the last call alone

      last.register_forward_pre_hook(keep)
    self._watched = True


@dataclasses.dataclass(frozen=True)
class Source(interfaces.TeacherSource):
  """Runs a timm model on the student's own images.

  Attributes:
    name: as timm knows it.
    digest: of its weights.
    model: its preprocessing.
    running: the network, in PyTorch.
  """

  name: str
  digest: str
  model: Facts
  running: Network = dataclasses.field(repr=False, compare=False)

  @property
  def evaluation_view(self) -> interfaces.EvaluationView:
    """As the weights were evaluated."""
    return interfaces.EvaluationView(
      self.model.interpolation, self.model.crop_pct, self.model.crop_mode
    )

  def __call__(self, frozen: Mapping[str, Any], batch: Batch) -> Teacher:
    """Taps of the batch; a call that nobody reads is not made."""
    del frozen
    image = jax.lax.stop_gradient(batch.image)
    parts = ("vectors", "maps")
    taps = {k: v for part in parts for k, v in self._run(part, image).items()}
    return Teacher(taps, None)

  def _run(self, part: str, image: Array) -> Mapping[str, Array]:
    n, *size = image.shape
    shapes = self.running.specs(part, tuple(size))
    specs = {
      name: jax.ShapeDtypeStruct((n, *shape[1:]), np.float32)
      for name, shape in shapes.items()
    }
    run: Callable[[Array], Arrays] = getattr(self.running, part)
    return jax.pure_callback(run, specs, image) if specs else {}


def load(
  name: str, weights: checkpoint.Source, overrides: Mapping[str, Any]
) -> tuple[Source, Variables]:
  """A timm model.

  Args:
    name: in timm, with or without a tag.
    weights: what `kd_jax.convert.read_checkpoint` accepts, read with its
      config.json if there is one; '' or 'pretrained' downloads timm's own.
    overrides: arguments of `timm.create_model`, and preprocessing facts such
      as 'mean'; 'dtype' is not looked at.

  Returns:
    (source, {}): the weights stay on the host.

  Raises:
    ValueError: no PyTorch or timm, several devices, an unknown model or
      option, or weights that cannot be had or do not fit.
  """
  timm = _timm()
  if jax.device_count() > 1:
    raise ValueError(
      "the teacher source 'timm' works with one device only, and there are "
      f"{jax.device_count()}. Use --config.teacher.source=online, or hide the "
      "others (CUDA_VISIBLE_DEVICES=0)."
    )
  if not timm.is_model(name.partition(".")[0]):
    near = resolve.near(name, timm.list_models())[:_SHOWN]
    raise ValueError(f"timm has no model {name!r}; near it are {near}")
  own = weights in _PRETRAINED
  tensors, facts = ({}, {}) if own else read_checkpoint(weights)
  stored = {k: facts[k] for k in ("num_classes", "global_pool") if k in facts}
  fields = {**stored, **(facts.get("model_args") or {}), **overrides}
  fields.pop("dtype", None)
  facts |= {k: fields.pop(k) for k in FACTS if k in fields}
  model = _create(timm, name, fields, pretrained=own)
  if not own:
    _fill(model, tensors, weights)
  known = {**model.pretrained_cfg, **facts}
  state = {k: v.numpy() for k, v in model.state_dict().items()}
  about = Facts(
    known["interpolation"],
    known["crop_pct"],
    tuple(known["input_size"]),
    known.get("crop_mode") or "center",
  )
  network = Network(model.eval(), known["mean"], known["std"])
  return Source(name, trees.fingerprint(state), about, network), {}


def stages_of(count: int) -> dict[str, int]:
  """{tap: index} into `count` intermediates, see above."""
  if count == len(STAGES) - 1:
    return {name: i for i, name in enumerate(STAGES[:-1])}
  if count < 4:
    return {}
  return {f"stage{k}": k * count // 4 - 1 for k in (1, 2, 3, 4)}


def _timm() -> ModuleType:
  try:
    import timm
    import torch  # noqa: F401
  except ImportError as error:
    raise ValueError(
      f"the teacher source 'timm' runs PyTorch, and there is no {error.name}: "
      "pip install torch timm"
    ) from error
  return timm


def _inference() -> contextlib.AbstractContextManager[None]:
  import torch

  return torch.inference_mode()


def _create(
  timm: ModuleType, name: str, fields: Mapping[str, Any], *, pretrained: bool
) -> torch.nn.Module:
  try:
    return timm.create_model(name, pretrained=pretrained, **fields)
  # timm passes on errors of its models, of PyTorch and of the hub.
  except Exception as error:
    first = (str(error).splitlines() or [""])[0]
    advice = (
      "Without a network set --config.teacher.weights to a file."
      if pretrained
      else "Set --config.teacher.overrides to what timm accepts."
    )
    raise ValueError(
      f"timm cannot make {name!r} with {dict(fields)} "
      f"({type(error).__name__}: {first}). {advice}"
    ) from error


def _fill(
  model: torch.nn.Module, tensors: Arrays, weights: checkpoint.Source
) -> None:
  import torch

  state = {k: torch.from_numpy(v) for k, v in tensors.items()}
  try:
    model.load_state_dict(state)
  except RuntimeError as error:
    lines = [line.strip() for line in str(error).splitlines()[1:]]
    raise ValueError(
      f"the tensors of {weights} do not fit the teacher: "
      f"{' '.join(lines[:2])[:300]}. Set --config.teacher.name, or "
      "--config.teacher.overrides.num_classes as in the file."
    ) from error


def _last_activation(
  model: torch.nn.Module, x: torch.Tensor
) -> torch.nn.Module | None:
  """The layer whose output `forward_features` returns, if that is averaged.

  A layer without parameters that keeps the shape and is not the identity.
  """
  import torch

  calls: list[tuple[torch.nn.Module, torch.Tensor, torch.Tensor]] = []
  entering: dict[torch.nn.Module, torch.Tensor] = {}

  def before(module: torch.nn.Module, args: tuple[Any, ...]) -> None:
    if args and isinstance(args[0], torch.Tensor):
      entering[module] = args[0].clone()  # the layer may work in place

  def after(module: torch.nn.Module, _: object, out: object) -> None:
    if module in entering and isinstance(out, torch.Tensor):
      calls.append((module, entering.pop(module), out))

  plain = [m for m in model.modules() if _is_plain(m)]
  hooks = [m.register_forward_pre_hook(before) for m in plain]
  hooks += [m.register_forward_hook(after) for m in plain]
  features = model.forward_features(x)
  for hook in hooks:
    hook.remove()
  if not isinstance(features, torch.Tensor) or features.ndim != 4:
    return None
  pooled = model.forward_head(features, pre_logits=True)
  average = features.mean((2, 3))
  if pooled.shape != average.shape or not torch.allclose(pooled, average):
    return None
  for module, given, out in reversed(calls):
    same = given.shape == features.shape and torch.equal(out, features)
    if same and not torch.equal(module(-torch.ones(1)), -torch.ones(1)):
      return module
  return None


def _is_plain(module: torch.nn.Module) -> bool:
  has_parts = next(module.children(), None) is not None
  return not has_parts and next(module.parameters(), None) is None


def _array(tensor: torch.Tensor) -> np.ndarray:
  return np.ascontiguousarray(tensor.float().numpy())
