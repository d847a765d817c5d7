"""Features of a folder, in files that others read."""

import numpy as np
import pytest
from door_case import STUDENT, command
from PIL import Image
from pyarrow import parquet

import kd_jax
from kd_jax.data.preprocess import Preprocess
from kd_jax.data.sources import folder


@pytest.fixture(scope="module")
def embedded(finished, images):
  return kd_jax.embed(images, finished[0], batch_size=16)


def test_they_are_the_network_s_own(embedded, finished, images):
  names, found = embedded
  assert names == [f"{i:02}.jpg" for i in range(40)]
  assert found.shape == (40, 16) and found.dtype == np.float32
  source = folder.Source(str(images))
  # As the teacher's images were.
  view = Preprocess(image_size=32, interpolation="bicubic", crop_pct=0.95)
  some = np.stack([view.eval(source[i]) for i in (3, 39)])
  model, variables = kd_jax.load_pretrained(STUDENT, finished[0] / "student")
  taps = model.apply(variables, some.astype(np.float32) / 255, train=False)
  wanted = np.asarray(taps["pooled"])
  assert wanted.std() > 0 and np.abs(wanted[0] - wanted[1]).max() > 0
  np.testing.assert_allclose(found[[3, 39]], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["features.npz", "deep/features.parquet"])
def test_files(name, embedded, finished, images, tmp_path):
  path = tmp_path / name
  status, said = command(
    "embed", images, "--model", finished[0], "--out", path, "--batch-size", 16
  )
  assert status == 0 and f"40 images x 16 features -> {path}" in said
  if path.suffix == ".npz":
    with np.load(path) as found:
      names, rows = found["names"].tolist(), found["features"]
  else:
    table = parquet.read_table(path)
    names = table["names"].to_pylist()
    rows = np.array(table["features"].to_pylist(), np.float32)
  assert names == embedded.names
  np.testing.assert_array_equal(rows, embedded.features)


def test_a_checkpoint_says_how_its_images_are_prepared(finished, images):
  found = kd_jax.embed(images, finished[0] / "export" / "timm", batch_size=16)
  same = kd_jax.embed(images, finished[0], batch_size=16)
  np.testing.assert_array_equal(found.features, same.features)


def test_a_broken_image_is_named(finished, tmp_path):
  Image.new("RGB", (40, 40)).save(tmp_path / "good.png")
  (tmp_path / "bad.png").write_bytes(b"no image")
  with pytest.raises(ValueError, match=r"bad\.png"):
    kd_jax.embed(tmp_path, finished[0], batch_size=16)
