"""PSPNet in PyTorch on dilated networks of timm, step by step in float64."""

import jax
import numpy as np
import pytest
import timm_pair
import torch
from torch import nn
from torch.nn import functional

from kd_jax import convert, trees
from kd_jax.models.blocks import maps
from kd_jax.transfer.heads import fcn, psp
from kd_jax.transfer.segmenter import Segmenter

CLASSES, BINS, WIDTH = 5, (1, 2, 3, 6), 16


class Pooling(nn.Module):
  def __init__(self, width):
    super().__init__()
    share = width // len(BINS)
    self.bins = nn.ModuleList(conv_norm(width, share, 1) for _ in BINS)

  def forward(self, x):
    found = [x]
    for side, layer in zip(BINS, self.bins, strict=True):
      y = layer(functional.adaptive_avg_pool2d(x, side))
      found.append(up(y, x.shape[2:]))
    return torch.cat(found, 1)


class Net(nn.Module):
  """A network of timm with both heads."""

  def __init__(self, body, width, middle):
    super().__init__()
    self.body, self.ppm = body, Pooling(width)
    self.bottleneck = conv_norm(2 * width, WIDTH, 3)
    self.classifier = nn.Conv2d(WIDTH, CLASSES, 1)
    self.conv1 = conv_norm(middle, WIDTH, 3)
    self.aux = nn.Conv2d(WIDTH, CLASSES, 1)

  def forward(self, x):
    *_, stage3, stage4 = self.body.forward_intermediates(
      x, intermediates_only=True
    )
    logits = self.classifier(self.bottleneck(self.ppm(stage4)))
    aux = self.aux(self.conv1(stage3))
    return up(logits, x.shape[2:]), up(aux, x.shape[2:])


def conv_norm(width, features, size):
  conv = nn.Conv2d(width, features, size, padding=size // 2, bias=False)
  return nn.Sequential(conv, nn.BatchNorm2d(features), nn.ReLU())


def up(x, size):
  return functional.interpolate(x, size, mode="bilinear", align_corners=True)


def as_pspnet(body):
  """Takes the strides of the last two stages away, as PSPNet's authors do."""
  for stage, dilation in ((body.layer3, 2), (body.layer4, 4)):
    for name, module in stage.named_modules():
      if name.endswith(("conv1", "downsample.0")):
        module.stride = (1, 1)
      if name.endswith("conv2"):
        module.stride = (1, 1)
        module.dilation = module.padding = (dilation, dilation)
  return body


def heads_of(state, net):
  """{path here: array} of the heads in a state_dict."""
  places = {"bottleneck": "head/bottleneck", "conv1": "aux/conv1"}
  for i, side in enumerate(BINS):
    places[f"ppm.bins.{i}"] = f"head/ppm/bin{side}"
  flat = {}
  for theirs, ours in places.items():
    kernel = state[f"{theirs}.0.weight"]
    flat[f"params/{ours}/conv/kernel"] = kernel.transpose(2, 3, 1, 0)
    for kind, name in (("weight", "scale"), ("bias", "bias")):
      flat[f"params/{ours}/bn/{name}"] = state[f"{theirs}.1.{kind}"]
    for kind in ("mean", "var"):
      path = f"batch_stats/{ours}/bn/{kind}"
      flat[path] = state[f"{theirs}.1.running_{kind}"]
  for theirs, ours in (("classifier", "head"), ("aux", "aux")):
    kernel = state[f"{theirs}.weight"].transpose(2, 3, 1, 0)
    flat[f"params/{ours}/classifier/kernel"] = kernel
    flat[f"params/{ours}/classifier/bias"] = state[f"{theirs}.bias"]
  body = {k.removeprefix("body."): v for k, v in state.items() if "body." in k}
  found = trees.flatten(convert.from_timm(net, body))
  return flat | {k.replace("/", "/backbone/", 1): v for k, v in found.items()}


@pytest.mark.parametrize(
  ("name", "fields"),
  [
    ("resnet18", {"dilation_type": "conv2"}),
    ("resnet50", {"dilation_type": "conv2"}),
    ("resnet18", {"dilation_type": "timm"}),
    ("regnety_002", {}),
  ],
)
def test_training_step(name, fields):
  size, stride = 41, {"output_stride": 8}
  plain = fields.get("dilation_type") == "conv2"
  theirs = timm_pair.timm_model(
    name, num_classes=0, **({} if plain else stride)
  )
  channels = [info["num_chs"] for info in theirs.feature_info]
  whole = Net(as_pspnet(theirs) if plain else theirs, *channels[:-3:-1])
  x = timm_pair.images(size, n=3)
  label = np.random.default_rng(1).integers(0, CLASSES, (3, size, size))
  body = timm_pair.models.create_model(
    name, num_classes=0, **timm_pair.RAW, **stride, **fields
  )
  layers = {"channels": WIDTH, "dropout": 0.0}
  net = Segmenter(
    body, psp.Head(CLASSES, **layers), fcn.Head(CLASSES, **layers)
  )
  variables = trees.unflatten(heads_of(timm_pair.arrays(whole), body))

  def loss(params, stats):
    taps, new = net.apply(
      {"params": params, **stats}, x, train=True, mutable=["batch_stats"]
    )
    total = sum(
      weight
      * -jax.numpy.take_along_axis(
        jax.nn.log_softmax(taps[tap]), label[..., None], -1
      ).mean()
      for tap, weight in (("logits", 1.0), ("aux_logits", 0.4))
    )
    return total, new

  with jax.enable_x64(True):
    variables = jax.tree.map(np.float64, variables)
    params = variables.pop("params")
    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (total, new), grads = jax.device_get(step(params, variables))
  whole.double().train()
  main, aux = whole(timm_pair.nchw(x))
  wanted_total = functional.cross_entropy(main, torch.from_numpy(label))
  wanted_total += 0.4 * functional.cross_entropy(aux, torch.from_numpy(label))
  wanted_total.backward()
  assert abs(total - wanted_total.item()) < 1e-6
  state = timm_pair.arrays(whole)
  for key, value in whole.named_parameters():
    state[key] = value.grad.float().numpy()
  wanted = heads_of(state, body)
  found = trees.flatten({"params": grads, **new})
  assert set(found) == set(wanted)
  least = 1e-6 * max(np.abs(value).max() for value in wanted.values())
  for path, value in wanted.items():
    scale = max(np.abs(value).max(), least)
    assert np.abs(found[path] - value).max() < 1e-5 * scale, path


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("size", [(3, 4), (16, 9), (1, 1), (5, 7)])
def test_resize(size, align_corners):
  x = np.random.default_rng(0).normal(size=(2, 5, 7, 3))
  want = functional.interpolate(
    timm_pair.nchw(x), size, mode="bilinear", align_corners=align_corners
  )
  with jax.enable_x64(True):
    got = maps.resize(jax.numpy.asarray(x), size, align_corners=align_corners)
  np.testing.assert_allclose(got, want.permute(0, 2, 3, 1), atol=1e-12)
