"""ScaleKD against numbers made by the authors' own code."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scalekd_goldens import (
  NAMES,
  affine,
  close,
  conv_bias,
  dense,
  method_variables,
  nhwc,
  projector,
  read,
)
from scipy import fft

from kd_jax import losses
from kd_jax.methods import scalekd
from kd_jax.models import create_model
from kd_jax.models.blocks.projector import Projector
from kd_jax.types import Batch, Teacher


@pytest.fixture(scope="module", params=["bn", "ln2d"])
def attention(request):
  golden = read(f"cap_{request.param}_7x7")
  made = Projector(
    32,
    int(golden["hp/num_heads"]),
    49,
    sharpness=float(golden["hp/softmax_scale"]),
    norm={"bn": "batch", "ln2d": "layer"}[request.param],
  )
  return golden, made


@pytest.mark.parametrize("query", ["selfq", "extq"])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_projector_is_the_authors(attention, mode, query):
  golden, made = attention
  case, variables = f"{mode}_{query}", projector(golden)
  given = golden["in/ext_query"] if query == "extq" else None

  @functools.partial(jax.value_and_grad, argnums=(0, 1, 2), has_aux=True)
  def run(params, x, given):
    out, new = made.apply(
      {**variables, "params": params},
      x,
      given,
      train=mode == "train",
      mutable=["batch_stats"],
    )
    return jnp.sum(out * golden["in/cotangent"]), (out, new)

  x = nhwc(golden["in/x"])
  (_, (out, new)), grads = jax.jit(run)(variables["params"], x, given)
  close(out, golden[f"out/{case}"])
  close(grads[1], nhwc(golden[f"grad/{case}/x"]))
  place = nhwc(golden[f"grad/{case}/pos_embed"])[0]
  close(grads[0]["pos_embed"], place)
  queries = grads[0]["query"] if given is None else grads[2]
  name = {"selfq": "query", "extq": "ext_query"}[query]
  close(queries, golden[f"grad/{case}/{name}"])
  after = "out/after_train_proj_student.1.running_"
  if mode == "train" and after + "mean" in golden:
    found = new["batch_stats"]["conv_norm"]
    close(found["mean"] + conv_bias(golden), golden[after + "mean"])
    close(found["var"], golden[after + "var"])


@pytest.mark.parametrize("size", [4, 7])
def test_the_alternative_view_removes_the_lowest_frequency(size):
  golden = read("dct")
  x = golden[f"in/x_{size}"]
  tokens = x.reshape(2, 5, -1).swapaxes(1, 2)
  got = losses.without_mean(tokens)
  close(got, golden[f"out/alt_{size}"].reshape(2, 5, -1).swapaxes(1, 2))
  # The definition of the paper: zero one coefficient and go back.
  spectrum = fft.dctn(x.astype(np.float64), axes=(2, 3))
  close(spectrum, golden[f"out/dct_{size}"])
  spectrum[..., 0, 0] = 0
  back = fft.idctn(spectrum, axes=(2, 3))
  # A float32 mean of up to 49 values near 1; the coefficient is above 1e-2.
  np.testing.assert_allclose(
    got, back.reshape(2, 5, -1).swapaxes(1, 2), atol=1e-5
  )


def test_the_identity_holds_on_maps_that_are_not_square():
  x = np.random.default_rng(0).normal(size=(2, 3, 5, 3))
  spectrum = fft.dctn(x, axes=(1, 2))
  spectrum[:, 0, 0] = 0
  back = fft.idctn(spectrum, axes=(1, 2)).reshape(2, 15, 3)
  np.testing.assert_allclose(
    losses.without_mean(x.reshape(2, 15, 3)), back, atol=1e-5
  )


@pytest.mark.parametrize("case", ["a", "b"])
def test_the_feature_losses_are_the_authors(case):
  golden = read("dfm")
  student = golden[f"in/{case}/student_tokens"]
  target = nhwc(golden[f"in/{case}/teacher_map"]).reshape(student.shape)
  views = {"ori": lambda x: x, "alt": losses.without_mean}
  weights = golden[f"hp/{case}/alpha"]
  for (name, view), weight in zip(views.items(), weights, strict=True):

    @jax.jit
    @jax.value_and_grad
    def run(student, view=view, weight=weight):
      return weight * losses.directions(view(student), view(target))

    loss, grad = run(student)
    close(loss, golden[f"out/{case}/loss_{name}"])
    close(grad, golden[f"grad/{case}/{name}"])


def test_a_zero_row_has_a_finite_gradient():
  rows = np.zeros((1, 4, 3), np.float32)
  grad = jax.grad(losses.directions)(rows, np.ones_like(rows))
  assert np.isfinite(grad).all()


def test_logits_terms_are_the_authors():
  golden = read("logits")
  student, teacher = golden["in/logits_student"], golden["in/logits_teacher"]
  labels = golden["in/labels"]
  smooth = 0.9 * np.eye(10, dtype=np.float32)[labels] + 0.01
  both = jax.jit(
    jax.value_and_grad(
      lambda x: jnp.stack(
        [
          0.5 * losses.soft_cross_entropy(x[0], teacher, 1.0),
          0.5 * losses.soft_cross_entropy(x[1], teacher, 4.0),
          losses.cross_entropy(x[2], labels),
          losses.cross_entropy(x[3], smooth),
          losses.binary_cross_entropy(x[4], labels),
        ]
      ).sum()
    )
  )
  names = ("kd_T1", "kd_T4", "ce", "label_smooth_0.1", "bce_sigmoid")
  total, grads = both(np.stack([student] * 5))
  close(total, np.sum([golden[f"out/{name}"] for name in names]))
  for grad, name in zip(grads, names, strict=True):
    close(grad, golden[f"grad/{name}"])
  same = losses.binary_cross_entropy(student, np.eye(10)[labels])
  close(same, golden["out/bce_sigmoid"])
  unknown = np.where(np.arange(4) < 2, labels, -1)
  half = losses.binary_cross_entropy(student[:2], labels[:2])
  close(losses.binary_cross_entropy(student, unknown), np.asarray(half))


@pytest.mark.parametrize("query", ["selfq", "extq"])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_last_stage_is_the_authors(mode, query):
  golden, case = read("final_stage"), f"{mode}_{query}"
  own = method_variables(
    golden, {"ori": "w/projector_0.", "alt": "w/projector_1."}
  )
  made = Projector(32, 4, 49, sharpness=5.0)
  target = nhwc(golden["in/teacher_map"]).reshape(3, 49, 32)
  views = {"ori": (0.08, lambda x: x), "alt": (0.06, losses.without_mean)}

  def run(x, queries):
    found = {}
    for name, (weight, view) in views.items():
      variables = {k: v[name] for k, v in own.items()}
      tokens, _ = made.apply(
        variables,
        x,
        queries.get(name),
        train=mode == "train",
        mutable=["batch_stats"],
      )
      found[name] = weight * losses.directions(view(tokens), view(target))
    return sum(found.values()), found

  given = {name: golden[f"in/query_{name}"] for name in views}
  given = given if query == "extq" else {}
  step = jax.jit(jax.value_and_grad(run, argnums=(0, 1), has_aux=True))
  (_, found), grads = step(nhwc(golden["in/student_map"]), given)
  for name in views:
    close(found[name], golden[f"out/{case}/loss_{name}"])
  close(grads[0], nhwc(golden[f"grad/{case}/student_map"]))
  for name, grad in grads[1].items():
    close(grad, golden[f"grad/{case}/query_{name}"])


def small_swin():
  """A Swin whose last stage is that of the authors' full case."""
  return create_model(
    "swin_tiny_patch4_window7_224",
    embed_dim=4,
    depths=(1, 1, 1, 2),
    num_heads=(1, 1, 1, 4),
    num_classes=10,
  )


def swin_tail(golden):
  """Variables of `small_swin`, of which only the tail is real."""
  blocks = {}
  for number in range(2):
    name = f"w/teacher_stage4/blocks.{number}."
    attention = name + "attn.w_msa."
    table = "relative_position_bias_table"
    blocks[f"block{number}"] = {
      "norm1": affine(golden, name + "norm1"),
      "norm2": affine(golden, name + "norm2"),
      "attn": {
        "qkv": dense(golden, attention + "qkv"),
        "proj": dense(golden, attention + "proj"),
        table: golden[attention + table],
      },
      "mlp": {
        "fc1": dense(golden, name + "ffn.layers.0.0"),
        "fc2": dense(golden, name + "ffn.layers.1"),
      },
    }
  # Theirs are (channel, row, column), timm's (column, row, channel).
  order = np.arange(64).reshape(16, 2, 2).transpose(2, 1, 0).ravel()
  merge = affine(golden, "w/teacher_merge/norm")
  reduction = golden["w/teacher_merge/reduction.weight"].T
  blocks["downsample"] = {
    "norm": {k: v[order] for k, v in merge.items()},
    "reduction": {"kernel": reduction[order]},
  }
  head = {
    "kernel": golden["w/teacher_fc/weight"].T,
    "bias": golden["w/teacher_fc/bias"],
  }
  norm = {
    k: golden[f"w/teacher_norm3/{v}"]
    for k, v in (("scale", "weight"), ("bias", "bias"))
  }
  return {"params": {"stage4": blocks, "neck": {"norm": norm}, "head": head}}


class Full:
  """The whole objective as the authors' distiller computes it."""

  def __init__(self):
    self.golden = golden = read("full_swin_tpp")
    self.own = method_variables(
      golden,
      {
        kind + view: f"w/{level}/projector_{number}."
        for kind, level in NAMES.items()
        for number, view in enumerate(("", "_alt"))
      },
    )
    tail, model = swin_tail(golden), small_swin()

    def resume(begin, x, end="head"):
      return model.apply(tail, x, begin=begin, end=end)

    final = nhwc(golden["in/teacher_s4"])
    head = tail["params"]["head"]
    logits = final.mean((1, 2)) @ head["kernel"] + head["bias"]
    close(logits, golden["out/logits_teacher"])
    entry = np.full((2, 14, 14, 16), np.nan, np.float32)
    taps = {"final": final, "logits": logits, "stage3": entry}
    self.teacher = Teacher(taps, resume)
    target = 0.9 * np.eye(10)[golden["in/labels"]] + 0.01
    image = np.zeros((2, 1, 1, 3), np.float32)
    self.batch = Batch(
      image,
      golden["in/labels"],
      np.ones(2, np.float32),
      target=target.astype(np.float32),
    )
    self.maps = [nhwc(golden[f"in/student_{s}"]) for s in ("s3", "s4")]

  def terms(self, maps, remat="none"):
    """Weighted terms of the student's two maps."""
    method = scalekd.Method(
      terms=scalekd.FEATURES + ("kd", "ce"), heads=(4, 4), remat=remat
    )
    golden, (penultimate, last) = self.golden, maps
    logits = last.mean((1, 2)) @ golden["w/student_fc/weight"].T
    logits = logits + golden["w/student_fc/bias"]
    taps = {"stage3": penultimate, "stage4": last, "logits": logits}
    found, _ = method.losses(self.own, taps, self.teacher, self.batch)
    weights = {"kd": 0.5, "ce": 0.5, "proxy": 0.08, "final": 0.08}
    weights |= {"proxy_alt": 0.06, "final_alt": 0.06}
    return {name: weights[name] * term for name, term in found.items()}


@pytest.fixture(scope="module")
def full():
  case = Full()
  groups = {
    "total": scalekd.FEATURES + ("kd", "ce"),
    "proxy_only": scalekd.PROXIES,
    "final_only": ("final", "final_alt"),
  }

  @jax.jit
  def run(maps):
    def some(maps, names):
      found = case.terms(maps)
      return sum(found[name] for name in names)

    grads = {k: jax.grad(some)(maps, names) for k, names in groups.items()}
    return case.terms(maps), grads

  return case, *run(case.maps)


def test_the_full_objective_is_the_authors(full):
  case, found, _ = full
  names = {
    "ce": "ori_loss",
    "kd": "loss_kd",
    "proxy": "loss_s3",
    "proxy_alt": "loss_s3_alt",
    "final": "loss_s4",
    "final_alt": "loss_s4_alt",
  }
  assert set(found) == set(names)
  for ours, theirs in names.items():
    close(found[ours], case.golden[f"out/{theirs}"])
  close(sum(found.values()), case.golden["out/total"])


@pytest.mark.parametrize("group", ["total", "proxy_only", "final_only"])
def test_its_gradients_are_the_authors(full, group):
  # That of the last terms with respect to stage 3 goes through the queries.
  case, _, grads = full
  for stage, grad in zip(("s3", "s4"), grads[group], strict=True):
    name = f"grad/{group}/student_{stage}"
    if name in case.golden:
      close(grad, nhwc(case.golden[name]))
    else:
      assert not np.any(grad)


@pytest.mark.parametrize(
  "remat", ["full", pytest.param("dots", marks=pytest.mark.slow)]
)
def test_rematerialisation_changes_memory_alone(full, remat):
  case, _, grads = full

  def total(maps, remat):
    return sum(case.terms(maps, remat).values())

  gradient = jax.grad(functools.partial(total, remat=remat))
  for got, want in zip(
    jax.jit(gradient)(case.maps), grads["total"], strict=True
  ):
    close(got, np.asarray(want))
  kept = [
    sum(x.size for x in jax.tree.leaves(residuals(total, case.maps, how)))
    for how in (remat, "none")
  ]
  assert kept[0] < 0.7 * kept[1]


def residuals(total, maps, remat):
  """Shapes of what the forward pass keeps for the backward pass."""
  run = functools.partial(total, remat=remat)
  return jax.eval_shape(lambda x: jax.vjp(run, x)[1], maps)
