"""How teachers are weighed while they teach, against UNIC's own figures."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax import resolve
from kd_jax.methods import multi
from kd_jax.methods.balance import dropping

FOLDER = Path(__file__).parents[2] / "golden"
GOLDEN = dict(np.load(FOLDER / "peers_balance.npz"))
KEY = jax.random.key(0)
KDEP = {"name": "kdep", "align": {"name": "linear"}}


def build(name, **fields):
  return resolve.build("methods.balance", "Balance", {"name": name, **fields})


def test_dropping_is_that_of_unic():
  losses = np.stack([GOLDEN[f"unic/per_image_{t}"] for t in "abc"], 1)
  kept = dropping.coefficients(
    jnp.asarray(losses), GOLDEN["unic/in/uniform"], 0.5
  )
  share = np.asarray(kept / kept.sum())
  np.testing.assert_allclose(share.sum(0), GOLDEN["unic/coefficients"], 1e-6)
  total = np.float64(losses * share).sum()
  np.testing.assert_allclose(total, GOLDEN["unic/loss"], 2e-6)


def test_dropped_teachers_get_no_gradient_and_the_hardest_always_does():
  rng = np.random.default_rng(0)
  losses = {
    f"{t}/{kind}": jnp.asarray(rng.random(64), jnp.float32)
    for t in "abc"
    for kind in ("cls", "patch")
  }

  @functools.partial(jax.jit, static_argnums=1)
  def total(losses, prob):
    terms, _ = build("dropping", prob=prob).balanced({}, losses, KEY)
    return sum(terms.values()) / 2

  grads = jax.jit(jax.grad(total), static_argnums=1)(losses, 0.5)
  counts = np.stack([np.asarray(grads[f"{t}/cls"]) for t in "abc"], 1)
  each = np.stack(
    [
      np.add(*(losses[f"{t}/{k}"] for k in ("cls", "patch"))) / 2 for t in "abc"
    ],
    1,
  )
  assert (counts[np.arange(64), each.argmax(1)] > 0).all()
  others = (counts > 0).sum() - 64
  assert 40 < others < 90  # of 128
  np.testing.assert_allclose(2 * counts.sum(), 1, rtol=1e-6)
  np.testing.assert_allclose(total(losses, 0.0), each.mean(), rtol=1e-6)
  np.testing.assert_allclose(total(losses, 1.0), each.max(1).mean(), rtol=1e-6)


def test_inverse_is_the_loss_over_its_average():
  balance = build("inverse", decay=0.5)
  stats = balance.init(("a/x", "b/x"))
  seen = [{"a/x": 4.0, "b/x": 0.1}, {"a/x": 2.0, "b/x": 0.4}]
  for losses in seen:
    given = {k: jnp.float32(v) for k, v in losses.items()}
    terms, stats = balance.balanced(stats, given, KEY)
  # Averages (4 + 2 * 2) / 3 and (0.1 + 2 * 0.4) / 3.
  np.testing.assert_allclose(terms["a/x"], 2 / (8 / 3), rtol=1e-6)
  np.testing.assert_allclose(terms["b/x"], 0.4 / 0.3, rtol=1e-6)

  def one(loss):
    return balance.balanced(stats, {"a/x": loss, "b/x": loss}, KEY)[0]["a/x"]

  value, slope = jax.value_and_grad(one)(jnp.float32(2.0))
  np.testing.assert_allclose(slope, value / 2, rtol=1e-6)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"name": "inverse", "decay": 1.0}, "balance.decay is 1.0"),
    ({"name": "dropping", "prob": 2.0}, "balance.prob is 2.0"),
    ({"name": "nosuch"}, "balance has no 'nosuch'"),
  ],
)
def test_impossible_fields_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    resolve.build("methods.balance", "Balance", fields)


def test_dropping_needs_the_loss_of_every_image():
  with pytest.raises(ValueError, match=r"every image, .*\['kl'\]"):
    multi.Method(
      terms=("a/kl", "a/feature"),
      parts={"a": KDEP},
      apart=True,
      balance={"name": "dropping"},
    )


def test_nothing_is_drawn_without_a_key():
  losses = {"a/x": jnp.ones(4), "b/x": jnp.ones(4)}
  with pytest.raises(ValueError, match="without a random key"):
    build("dropping").balanced({}, losses, None)
  for name in ("fixed", "inverse"):
    balance = build(name)
    stats = balance.init(tuple(losses))
    found, _ = balance.balanced(stats, {"a/x": losses["a/x"][0]}, None)
    assert float(found["a/x"]) == pytest.approx(1, 1e-5)
