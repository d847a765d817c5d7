import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax import losses
from kd_jax.train import views
from kd_jax.train.views import Mix
from kd_jax.types import Batch

IMAGES = np.random.default_rng(0).uniform(size=(6, 8, 10, 3)).astype("float32")
LABELS = np.array([0, 1, 2, 3, 0, 2])
SWAPPED = [1, 0, 3, 2, 5, 4]
MIXED = jax.jit(views.mixed, static_argnames=("mix", "classes", "crops"))


def mixed(mix, seed=0, labels=LABELS, crops=1):
  batch = Batch(jnp.asarray(IMAGES), jnp.asarray(labels), jnp.ones(6))
  key = jax.random.key(seed)
  return jax.device_get(MIXED(batch, key, mix=mix, classes=4, crops=crops))


def share_of(image):
  """The partner's share in every pixel of the first image."""
  gap = IMAGES[1] - IMAGES[0]
  return np.median((image[0] - IMAGES[0]) / gap, axis=-1)


def test_mixup_is_linear_in_pairs():
  found = mixed(Mix(mixup=0.8))
  share = share_of(found.image)
  assert 0.01 < share[0, 0] < 0.99
  want = IMAGES + share[0, 0] * (IMAGES[SWAPPED] - IMAGES)
  np.testing.assert_allclose(found.image, want, rtol=1e-4, atol=1e-5)
  hard = np.eye(4)[LABELS]
  want = hard + share[0, 0] * (hard[SWAPPED] - hard)
  np.testing.assert_allclose(found.target, want, atol=1e-5)


def test_cutmix_pastes_a_rectangle_and_counts_it():
  areas = []
  for seed in range(8):
    found = mixed(Mix(cutmix=1.0), seed)
    inside = np.rint(share_of(found.image)).astype(bool)
    rows, columns = inside.any(1), inside.any(0)
    assert (inside == rows[:, None] & columns[None]).all()
    where = inside[None, :, :, None]
    want = np.where(where, IMAGES[SWAPPED], IMAGES)
    np.testing.assert_allclose(found.image, want, atol=1e-6)
    areas.append(inside.mean())
    np.testing.assert_allclose(
      found.target[0], [1 - areas[-1], areas[-1], 0, 0], atol=1e-6
    )
  assert len(set(areas)) > 4


def test_weights_follow_the_beta_distribution():
  shares = [
    share_of(mixed(Mix(mixup=0.2), seed).image)[0, 0] for seed in range(200)
  ]
  # Beta(.2, .2): mean 1/2, variance 1 / (4 (2 * .2 + 1)).
  assert abs(np.mean(shares) - 0.5) < 0.09
  assert abs(np.var(shares) - 1 / 5.6) < 0.03


def test_probabilities_choose():
  untouched = mixed(Mix(mixup=0.5, prob=0.0))
  np.testing.assert_array_equal(untouched.image, IMAGES)
  both = Mix(mixup=1.0, cutmix=1.0, prob=0.7, switch=0.25)
  kinds = {"none": 0, "mixup": 0, "cutmix": 0}
  for seed in range(120):
    share = share_of(mixed(both, seed).image)
    flat = np.ptp(share) < 1e-3
    kind = "cutmix" if not flat else "mixup" if share.max() > 1e-6 else "none"
    kinds[kind] += 1
  # A rectangle may be empty: a few cuts count as none.
  assert 25 <= kinds["none"] <= 60
  assert 45 <= kinds["mixup"] <= 78
  assert 8 <= kinds["cutmix"] <= 32


def test_crops_of_an_image_are_not_mixed_with_each_other():
  rows = np.arange(12)
  found = views.partner(rows, 3)
  assert found.tolist() == [3, 4, 5, 0, 1, 2, 9, 10, 11, 6, 7, 8]


def test_smoothing_alone_leaves_images():
  found = mixed(Mix(smoothing=0.2), labels=np.array([0, 1, -1, 3, 0, 2]))
  np.testing.assert_array_equal(found.image, IMAGES)
  np.testing.assert_allclose(found.target[0], [0.85, 0.05, 0.05, 0.05])
  np.testing.assert_array_equal(found.target[2], np.zeros(4))
  assert found.classes is found.target


def test_cross_entropy_of_probabilities():
  logits = np.random.default_rng(1).normal(size=(6, 4)).astype("float32")
  hard = losses.cross_entropy(jnp.asarray(logits), jnp.asarray(LABELS))
  soft = losses.cross_entropy(jnp.asarray(logits), jnp.eye(4)[LABELS])
  # Float32 sums of other length and order; a wrong class is far off.
  np.testing.assert_allclose(hard, soft, rtol=1e-5)
  target = np.random.default_rng(2).dirichlet(np.ones(4), 6).astype("float32")
  target[3] = 0  # no label
  shifted = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  want = -(target * shifted).sum() / 5
  got = losses.cross_entropy(jnp.asarray(logits), jnp.asarray(target))
  np.testing.assert_allclose(got, want, rtol=1e-5)


def test_an_odd_number_of_images_has_no_pairs():
  with pytest.raises(ValueError, match="a microbatch of 6 views, 2 of each"):
    mixed(Mix(mixup=0.5), crops=2)


@pytest.mark.parametrize(
  ("fields", "match"),
  [
    ({"prob": 1.5}, r"mix.prob is 1.5; it must be in \[0, 1\]"),
    ({"switch": -0.1}, "mix.switch is -0.1"),
    ({"smoothing": 2.0}, "mix.smoothing is 2.0"),
    ({"mixup": -1.0}, "mix.mixup is -1.0; it must be at least 0"),
    ({"cutmix": -1.0}, "mix.cutmix is -1.0"),
  ],
)
def test_errors(fields, match):
  with pytest.raises(ValueError, match=match):
    Mix(**fields)
