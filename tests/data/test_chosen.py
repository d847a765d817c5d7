import numpy as np
import pytest

from kd_jax.data.chosen import Chosen
from kd_jax.data.sources import digits, folder, scenes

SOURCE = digits.Source("train[:50]")
ROWS = np.array([31, 4, 17])


@pytest.fixture
def chosen():
  return Chosen(SOURCE, ROWS)


def test_records_are_those_of_the_source_with_their_ids(chosen):
  assert len(chosen) == 3
  for place, row in enumerate(ROWS):
    record = chosen[place]
    assert record["id"] == row and record["label"] == SOURCE[row]["label"]
    np.testing.assert_array_equal(record["image"], SOURCE[row]["image"])
    assert chosen.describe(place) == SOURCE.describe(row)
  assert list(chosen.ids()) == ["31", "4", "17"]
  np.testing.assert_array_equal(
    chosen.all_labels(), np.asarray(SOURCE.all_labels())[ROWS]
  )


def test_classes_do_not_depend_on_the_choice(chosen):
  assert chosen.num_classes == 10
  assert tuple(chosen.class_names) == SOURCE.class_names
  masked = Chosen(scenes.Source("train", length=4), np.array([2]))
  assert tuple(masked.mask_names) == tuple(masked.source.mask_names)
  assert masked[0]["mask"].shape == (32, 32)


def test_how_files_are_read_is_that_of_the_source(tmp_path):
  (tmp_path / "1.jpg").write_bytes(b"no image")
  fields = {"skip_corrupt": True, "exif_rotation": True}
  source = folder.Source(str(tmp_path), **fields)
  found = Chosen(source, np.array([0]))
  assert found.skip_corrupt and found.exif_rotation
  assert not Chosen(SOURCE, ROWS).skip_corrupt


def test_a_fingerprint_is_of_source_order_and_rows(chosen):
  prints = {
    chosen.fingerprint,
    SOURCE.fingerprint,
    Chosen(SOURCE, ROWS[::-1]).fingerprint,
    Chosen(SOURCE, ROWS[:2]).fingerprint,
    Chosen(digits.Source("train[:51]"), ROWS).fingerprint,
  }
  assert len(prints) == 5 and all(len(text) == 16 for text in prints)
  same = Chosen(digits.Source("train[:50]"), ROWS.astype(np.int32))
  assert same.fingerprint == chosen.fingerprint
