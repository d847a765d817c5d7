import pytest

from kd_jax.data.sources import splits

SIZES = {"train": 1437, "test": 360}


@pytest.mark.parametrize(
  ("split", "expected"),
  [
    ("train", ("train", 0, 1437)),
    ("test[:]", ("test", 0, 360)),
    ("train[:500]", ("train", 0, 500)),
    ("train[500:]", ("train", 500, 1437)),
    ("train[50%:]", ("train", 718, 1437)),
    ("train[:50%]", ("train", 0, 718)),
    ("train[10%:20%]", ("train", 144, 287)),
    ("test[-10:]", ("test", 350, 360)),
    ("test[-25%:-10]", ("test", 270, 350)),
    ("test[0:100%]", ("test", 0, 360)),
  ],
)
def test_bounds(split, expected):
  assert splits.parse(split, SIZES) == expected


def test_percent_parts_tile_the_split():
  bounds = [splits.parse(f"train[{p}%:{p + 1}%]", SIZES) for p in range(100)]
  stops = [stop for _, _, stop in bounds]
  starts = [start for _, start, _ in bounds]
  assert starts == [0, *stops[:-1]]
  assert stops[-1] == 1437


@pytest.mark.parametrize(
  ("split", "match"),
  [
    ("train[:1.5]", "is not 'name', 'name"),
    ("train[::2]", "is not 'name', 'name"),
    ("train+test", r"names are \['test', 'train'\]"),
    ("", "is not 'name'"),
    ("val", r"names 'val'; the source has \['test', 'train'\]"),
    ("test[:361]", r"bound 361 is outside; .* 360 \(there are 360 records\)"),
    ("test[-361:]", "bound -361 is outside"),
    ("test[:101%]", "bound 101% is outside; allowed is at most 100%"),
    ("test[5:5]", "is empty: it is records 5 to 5 of 360"),
    ("test[60%:40%]", "is empty: it is records 216 to 144 of 360"),
  ],
)
def test_errors(split, match):
  with pytest.raises(ValueError, match=match):
    splits.parse(split, SIZES)
