"""UNIC, Theia and RADIO: released figures, and definitions in NumPy."""

import jax
import jax.image
import jax.numpy as jnp
import numpy as np
import peers
import pytest
from peers import BATCH, STUDENT, TEACHER, made
from scipy import special

from kd_jax.align import basis as basis_lib
from kd_jax.align.balance import phi_s
from kd_jax.methods import multi
from kd_jax.methods.balance import dropping
from kd_jax.methods.recent import radio, theia, unic
from kd_jax.types import Teacher

UNIC = peers.arrays("peers_balance")
THEIA = peers.arrays("peers_theia")
BOTH = ("summary", "patches")
SMALL = {"hidden": 7, "last_hidden": 9}


def artifact(tap):
  rows = TEACHER[tap].reshape(-1, TEACHER[tap].shape[-1])
  rng = np.random.default_rng(0)
  rows = np.float32(3 * np.tile(rows, (4, 1)) + rng.normal(size=(1, 1)))
  rows += np.float32(rng.normal(size=rows.shape))
  state = basis_lib.update(
    basis_lib.init(rows.shape[1]), rows, np.ones(len(rows), np.float32)
  )
  found = basis_lib.finish(state)
  return {**found.artifact(found.mean.size), "rows": np.float32(len(rows))}


ARTIFACT = {tap: artifact(tap) for tap in ("pooled", "stage3", "stage4")}


def standard(tap):
  own = ARTIFACT[tap]
  root = np.sqrt(np.float64(own["channel_variance"]))
  return (TEACHER[tap] - np.float64(own["mean"])) / root


def away(x, y):
  inner = (x * y).sum(-1)
  return 1 - inner / np.linalg.norm(x, axis=-1) / np.linalg.norm(y, axis=-1)


def smooth(x, y):
  gap = np.abs(x - y)
  return np.where(gap < 1, gap**2 / 2, gap - 0.5).mean(-1)


def dense(params, x):
  return np.float64(x) @ np.float64(params["kernel"]) + params["bias"]


def normal(params, x, eps=1e-5):
  x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)
  return x * params["scale"] + params["bias"]


def gelu(x):
  return x * special.ndtr(x)


def mlp(params, x):
  return dense(params["out"], gelu(dense(params["hidden"], x)))


def sized(x, side):
  shape = (len(x), side, side, x.shape[-1])
  return np.float64(jax.image.resize(x, shape, "linear"))


def test_unic_is_the_released_loss_with_its_dropping():
  given = peers.given(UNIC, "unic")
  kinds = [(t, kind) for t in "abc" for kind in ("cls", "patch")]
  students = {f"{t}_{k}": given[f"student_{t}_{k}"] for t, k in kinds}
  targets = {
    f"{t}_{k}": np.float64(given[f"teacher_{t}_{k}"]) for t, k in kinds
  }

  def rows(x):
    return x[:, None] if x.ndim == 2 else x

  def images(x):
    found = {k: unic.distance(rows(x[k]), rows(y)) for k, y in targets.items()}
    return jnp.stack(
      [(found[f"{t}_cls"] + found[f"{t}_patch"]) / 2 for t in "abc"], 1
    )

  want = np.stack([UNIC[f"unic/per_image_{t}"] for t in "abc"], 1)
  with jax.enable_x64(True):
    np.testing.assert_allclose(jax.jit(images)(students), want, rtol=2e-6)

  def loss(**x):
    each = images(x)
    kept = dropping.coefficients(each, given["uniform"], 0.5)
    return jnp.sum(each * kept) / jnp.sum(kept)

  peers.check(UNIC, "unic", loss, **students)


def test_theia_is_the_released_loss():
  def loss(student, teacher):
    return jnp.mean(theia.distance(student, teacher))

  peers.check(THEIA, "theia_cos_l1", loss, **peers.given(THEIA, "theia_cos_l1"))


def test_unic_sums_its_ladder():
  method = unic.Method(ladder=("stage3",), **SMALL)
  found, *_ = peers.check_learns(method, BOTH, artifact=ARTIFACT)
  params = made(method)["params"]
  assert set(params) == set(BOTH)
  assert params["patches"]["stage4"]["hidden"]["kernel"].shape == (10, 9)
  rungs = {tap: STUDENT[tap] for tap in ("stage3", "stage4")}
  total = sum(mlp(params["patches"][k], sized(x, 2)) for k, x in rungs.items())
  target = standard("stage4")
  want = (away(total, target) + smooth(total, target)).mean() / 2
  np.testing.assert_allclose(found["patches"], want, rtol=1e-5)
  rungs = {"stage3": STUDENT["stage3"].mean((1, 2))}
  rungs["pooled"] = STUDENT["pooled"]
  total = sum(mlp(params["summary"][k], x) for k, x in rungs.items())
  target = standard("pooled")
  want = (away(total, target) + smooth(total, target)).mean() / 2
  np.testing.assert_allclose(found["summary"], want, rtol=1e-5)


def test_a_class_token_is_the_summary_of_a_rung():
  x = np.float32(np.random.default_rng(0).normal(size=(2, 17, 3)))
  np.testing.assert_array_equal(unic.summary(x), x[:, 0])
  np.testing.assert_allclose(unic.summary(x[:, 1:]), x[:, 1:].mean(1), 1e-5)


def convolved(params, x):
  kernel = np.float64(params["kernel"])
  padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  h, w = x.shape[1:3]
  total = sum(
    padded[:, i : i + h, j : j + w] @ kernel[i, j]
    for i in range(3)
    for j in range(3)
  )
  return np.maximum(total + params["bias"], 0)


def test_theia_translates_the_map():
  method = theia.Method(hidden=6, teacher="stage3")
  found, *_ = peers.check_learns(method, ("patches",), artifact=ARTIFACT)
  params = made(method)["params"]
  x = dense(params["adapter"], normal(params["norm"], STUDENT["stage4"]))
  x = np.float64(jax.image.resize(x, (6, 4, 4, 6), "linear"))
  for i in range(2):
    x = normal(params[f"norm{i}"], convolved(params[f"conv{i}"], x))
  x, target = dense(params["out"], x), standard("stage3")
  flat = away(x.reshape(6, -1), target.reshape(6, -1)).mean()
  want = 0.9 * flat + 0.1 * smooth(x, target).mean()
  np.testing.assert_allclose(found["patches"], want, rtol=1e-4)


def adapted(params, x):
  x = normal(params["norm"], dense(params["hidden"], x))
  return dense(params["out"], gelu(x))


def test_radio_has_both_kinds_of_patches():
  aligner = phi_s.Aligner()
  own = {"stage4": aligner.refined(ARTIFACT["stage4"], [12])}
  method = radio.Method(hidden=7)
  refined = method.refined("stage4", ARTIFACT["stage4"], peers.specs(TEACHER))
  np.testing.assert_array_equal(refined["basis"], own["stage4"]["basis"])
  found, *_ = peers.check_learns(method, BOTH, artifact=own)
  params = made(method)["params"]
  summary = adapted(params["summary"], STUDENT["pooled"])
  want = away(summary, TEACHER["pooled"]).mean()
  np.testing.assert_allclose(found["summary"], want, rtol=1e-5)
  patches = adapted(params["patches"], STUDENT["stage4"])
  mean, turn = (own["stage4"][k] for k in ("mean", "basis"))
  target = (TEACHER["stage4"] - np.float64(mean)) @ turn
  want = ((patches - target) ** 2).mean()
  np.testing.assert_allclose(found["patches"], want, rtol=1e-4)

  plain = radio.Method(hidden=7, loss="cosine_l1", align={"name": "linear"})
  assert plain.artifact_taps == () and method.artifact_taps == ("stage4",)
  found, *_ = peers.check_learns(plain, BOTH)
  target = np.float64(TEACHER["stage4"])
  want = 0.9 * away(patches, target) + 0.1 * smooth(patches, target)
  np.testing.assert_allclose(found["patches"], want.mean(), rtol=1e-4)


@pytest.mark.parametrize(
  "method",
  [
    {"name": "unic", "ladder": ("stage3",), **SMALL},
    {"name": "theia", "hidden": 5, "convolutions": 0},
    {"name": "radio", "hidden": 5, "align": {"name": "standardise"}},
  ],
  ids=lambda fields: fields["name"],
)
def test_teachers_are_dropped_image_by_image(method):
  terms = ("patches",) if method["name"] == "theia" else BOTH
  several = multi.Method(
    terms=tuple(f"{t}/{term}" for t in "ab" for term in terms),
    parts={"a": method, "b": method},
    apart=True,
    balance={"name": "dropping", "prob": 1.0},
  )
  taps = {f"{t}/{k}": v for t in "ab" for k, v in TEACHER.items()}
  variables = made(several, teacher=taps)
  variables["artifact"] = {
    f"{t}/{k}": v for t in "ab" for k, v in ARTIFACT.items()
  }
  variables["key"] = jax.random.key(0)

  @jax.jit
  def everything(variables):
    total, _ = several.losses(variables, STUDENT, Teacher(taps, None), BATCH)
    each, alone = {}, {}
    for name, part in several.methods.items():
      given = several._own(variables, name), STUDENT, Teacher(TEACHER, None)
      each[name] = part.image_losses(*given, BATCH)
      alone[name], _ = part.losses(*given, BATCH)
    return total, each, alone

  total, each, alone = everything(variables)
  for name, term in ((name, term) for name in "ab" for term in terms):
    loss = each[name][term]
    assert loss.shape == (6,) and np.ptp(loss) > 0
    np.testing.assert_allclose(loss.mean(), alone[name][term], rtol=1e-5)
  # With this probability only the hardest teacher of an image stays.
  mean = [np.mean([*terms.values()], 0) for terms in each.values()]
  want = np.max(mean, 0).mean()
  np.testing.assert_allclose(sum(total.values()) / len(terms), want, rtol=1e-5)


@pytest.mark.parametrize(
  ("build", "message"),
  [
    (lambda: unic.Method(hidden=0), "hidden is 0"),
    (lambda: made(unic.Method(ladder=("pooled",))), "'pooled' of the student"),
    (lambda: made(unic.Method(token="stage4")), "no such vector per image"),
    (lambda: theia.Method(convolutions=-1), "convolutions is -1"),
    (lambda: theia.Method(terms=("summary",)), "needs one of .'patches'"),
    (lambda: made(theia.Method(teacher="logits")), "'logits' of the teacher"),
    (lambda: radio.Method(loss="l2"), "loss is 'l2'; it can be"),
    (lambda: radio.Method(align={"name": "x"}).artifact_taps, "has no 'x'"),
  ],
)
def test_what_does_not_fit_is_refused(build, message):
  with pytest.raises(ValueError, match=message):
    build()
