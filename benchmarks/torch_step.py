"""The PyTorch side of `benchmarks.kdep_step`: the same step, written anew.

The fast habits of each device: channels_last, eager float32 on a CPU; bfloat16
autocast and torch.compile on a GPU. Normalised once for both networks. The
networks are timm's if it is installed, else the small ResNet below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from kd_jax.convert import rules
from kd_jax.models.backbone import Backbone


def contenders(
  work: Any, method: str, *, compiled: bool
) -> tuple[dict[str, Callable[[int], float]], Callable[[], Any], str]:
  """Runs of `method` and 'teacher', the student's tensors, and a note.

  Args:
    work: a `kdep_step.Work`.
    method: 'kdep' or 'supervised', which needs no 'teacher'.
    compiled: use torch.compile.

  Returns:
    ({name: run}, () -> {tensor: array}, what is measured); no runs where
    PyTorch cannot run, and the note says why.
  """
  try:
    import torch
  except ImportError:
    return {}, dict, "PyTorch is not installed: pip install torch"
  backend = jax.default_backend()
  device = {"cpu": "cpu", "gpu": "cuda"}.get(backend)
  if device is None or (device == "cuda" and not torch.cuda.is_available()):
    return {}, dict, f"this PyTorch has no {backend} to compare on"
  make = {"kdep": build, "supervised": build_supervised}[method]
  step, forward, weights = make(work, device, compiled=compiled)

  def repeat(once: Callable[[], Any]) -> Callable[[int], float]:
    def run(steps: int) -> float:
      for _ in range(steps):
        value = once()
      return float(value)

    return run

  how = "torch.compile" if compiled else "eager"
  nets = "own" if timm_or_none() is None else "timm's"
  note = (
    f"torch {torch.__version__}, {how}, {nets} networks, "
    f"{torch.get_num_threads()} threads"
  )
  runs = {method: repeat(step)}
  if forward is not None:
    runs["teacher"] = repeat(forward)
  return runs, weights, note


def build(
  work: Any, device: str, *, compiled: bool
) -> tuple[Callable[[], Any], ...]:
  """(one training step, the teacher's forward pass, the student's tensors)."""
  import torch

  teacher, student = (
    placed(network(name, model, work.weights[side]), device)
    for side, name, model in (
      ("teacher", work.config.teacher.name, work.source.model),
      ("student", work.config.student.name, work.student),
    )
  )
  teacher = teacher.eval().requires_grad_(False)
  sgd = optimizer(work, student)
  wrap = torch.compile if compiled else lambda f: f
  low = work.config.dtype == "bfloat16"
  amp = torch.autocast(device, torch.bfloat16, enabled=low)
  # An NHWC array seen as NCHW is channels_last.
  image = torch.from_numpy(work.image).to(device).permute(0, 3, 1, 2)
  unit, align = unit_of(work.student, device), aligner(work, device)

  @wrap
  def forward():
    with torch.no_grad(), amp:
      return teacher(unit(image))

  @wrap
  def loss_of():
    x = unit(image)
    with torch.no_grad(), amp:
      target = teacher(x)
    with amp:
      feature = student(x)
    return torch.nn.functional.mse_loss(feature.float(), align(target.float()))

  def step():
    sgd.zero_grad()
    loss = loss_of()
    loss.backward()
    sgd.step()
    return loss.detach()

  return step, lambda: forward().mean(), lambda: tensors(student)


def build_supervised(
  work: Any, device: str, *, compiled: bool
) -> tuple[Callable[[], Any], None, Callable[[], Any]]:
  """(a training step on labels, None, the student's tensors)."""
  import torch

  name, model = work.config.student.name, work.student
  student = placed(classifier(name, model, work.weights["student"]), device)
  sgd = optimizer(work, student)
  low = work.config.dtype == "bfloat16"
  amp = torch.autocast(device, torch.bfloat16, enabled=low)
  image = torch.from_numpy(work.image).to(device).permute(0, 3, 1, 2)
  label = torch.arange(len(image), device=device) % model.num_classes
  unit = unit_of(model, device)

  def loss_of():
    with amp:
      logits = student(unit(image))
    return torch.nn.functional.cross_entropy(logits.float(), label)

  loss_of = torch.compile(loss_of) if compiled else loss_of

  def step():
    sgd.zero_grad()
    loss = loss_of()
    loss.backward()
    sgd.step()
    return loss.detach()

  return step, None, lambda: tensors(student)


def tensors(net: Any) -> dict[str, np.ndarray]:
  """{name: a copy} of all that a network holds."""
  found = net.state_dict().items()
  return {k: v.detach().cpu().numpy().copy() for k, v in found}


def placed(net: Any, device: str) -> Any:
  """The network on the device, its maps in channels_last."""
  import torch

  return net.to(device, memory_format=torch.channels_last)


def optimizer(work: Any, net: Any) -> Any:
  """The SGD of the run for the parameters of `net`."""
  import torch

  fields = work.config.optim
  return torch.optim.SGD(
    net.parameters(),
    lr=fields.lr,
    momentum=fields.momentum,
    weight_decay=fields.weight_decay,
  )


def unit_of(model: Backbone, device: str) -> Callable[[Any], Any]:
  """uint8 NCHW images to normalised float32 ones."""
  import torch

  mean, std = (
    torch.tensor(v, device=device).view(1, 3, 1, 1) * 255
    for v in (model.mean, model.std)
  )
  return lambda image: (image.float() - mean) / std


def aligner(work: Any, device: str) -> Callable[[Any], Any]:
  """SVD projection and power-temperature scaling of teacher features."""
  import torch

  mean, basis = (
    torch.from_numpy(work.artifact[k]).to(device) for k in ("mean", "basis")
  )
  width, method = work.student.num_features, work.config.method
  index = torch.arange(width, device=device) % basis.shape[1]
  whole = width == basis.shape[1]

  def align(feature):
    z = (feature - mean) @ basis
    z = z if whole else z[:, index]
    root = (z / method.temperature).abs() ** (1 / method.power)
    return z.sign() * root

  return align


def network(
  name: str, model: Backbone, weights: Mapping[str, np.ndarray]
) -> Any:
  """The network that maps images to features before the last ReLU.

  Raises:
    ValueError: not a ResNet, and no timm to take it from.
  """
  import torch

  timm = timm_or_none()
  if timm is not None:
    net = pooled(timm.create_model(name, num_classes=0))
  elif rules.family(model) == "resnet":
    net = resnet(model)
  else:
    raise ValueError(
      f"the PyTorch {name} is timm's, which cannot be imported: pip install "
      "timm, or use a ResNet, or --torch off"
    )
  drop = rules.head_names(model)
  state = {k: torch.from_numpy(v) for k, v in weights.items() if k not in drop}
  lost = net.load_state_dict(state, strict=False)
  counters = {"num_batches_tracked"}
  missing = {k.rsplit(".", 1)[-1] for k in lost.missing_keys} - counters
  if missing or lost.unexpected_keys:
    raise ValueError(f"{name} of timm and of kd_jax differ: {lost}")
  return net.train()


def classifier(
  name: str, model: Backbone, weights: Mapping[str, np.ndarray]
) -> Any:
  """Timm's network that maps images to logits.

  Raises:
    ValueError: timm cannot be imported.
  """
  import torch

  timm = timm_or_none()
  if timm is None:
    raise ValueError(
      f"the PyTorch {name} is timm's, which cannot be imported: pip install "
      "timm, or use --torch off"
    )
  net = timm.create_model(name, num_classes=model.num_classes)
  state = {k: torch.from_numpy(v) for k, v in weights.items()}
  net.load_state_dict(state, strict=False)
  return net.train()


def timm_or_none() -> Any:
  """The module timm, if it can be imported."""
  try:
    import timm
  # RuntimeError: a torchvision that was built for another torch.
  except (ImportError, RuntimeError):
    return None
  return timm


def pooled(net: Any) -> Any:
  """A timm network that returns its pooled map before the last activation."""
  from torch import nn

  if hasattr(net, "layer4"):
    last = net.layer4[-1]
    setattr(last, "act3" if hasattr(last, "act3") else "act2", nn.Identity())
  else:
    net.bn2.act = nn.Identity()
  net.forward = lambda x: net.forward_features(x).mean((2, 3))
  return net


def resnet(model: Backbone) -> Any:
  """The ResNet that `model` describes, with timm's tensor names."""
  from torch import nn

  block = block_of(model)

  class ResNet(nn.Module):
    def __init__(self):
      super().__init__()
      width = model.stem_width
      self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
      self.bn1 = nn.BatchNorm2d(width)
      plan = zip(model.layers, model.channels, strict=True)
      for s, (depth, channels) in enumerate(plan, 1):
        strides = [1 if s == 1 else 2] + [1] * (depth - 1)
        blocks = []
        for stride in strides:
          blocks.append(block(width, channels, stride))
          width = blocks[-1].out
        self.add_module(f"layer{s}", nn.Sequential(*blocks))

    def forward(self, x):
      # Blocks begin with the ReLU; max pooling commutes with the first one.
      x = nn.functional.max_pool2d(self.bn1(self.conv1(x)), 3, 2, 1)
      for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
        x = stage(x)
      return x.mean((2, 3))

  return ResNet()


def block_of(model: Backbone) -> type:
  """The class of the residual blocks: (width, channels, stride) -> module."""
  from torch import nn

  class Block(nn.Module):
    def __init__(self, width, channels, stride):
      super().__init__()
      inner = channels * model.base_width // 64 * model.cardinality
      plan = [(inner, 3, stride, 1), (channels, 3, 1, 1)]
      if model.block == "bottleneck":
        middle = (inner, 3, stride, model.cardinality)
        plan = [(inner, 1, 1, 1), middle, (4 * channels, 1, 1, 1)]
      before = width
      for i, (out, size, step, groups) in enumerate(plan, 1):
        conv = nn.Conv2d(
          before, out, size, step, size // 2, groups=groups, bias=False
        )
        self.add_module(f"conv{i}", conv)
        self.add_module(f"bn{i}", nn.BatchNorm2d(out))
        before = out
      self.depth, self.out = len(plan), before
      self.downsample = nn.Sequential()
      if stride != 1 or width != before:
        conv = nn.Conv2d(width, before, 1, stride, bias=False)
        self.downsample.extend([conv, nn.BatchNorm2d(before)])

    def forward(self, x):
      y = x = x.relu_()
      for i in range(1, self.depth + 1):
        y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
        y = y.relu_() if i < self.depth else y
      return y + self.downsample(x)

  return Block
