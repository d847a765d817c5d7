"""Images whose colours are their masks: what is wrong shows."""

import dataclasses

import numpy as np

from kd_jax import interfaces

COLOURS = np.array(
  [[250, 20, 20], [20, 250, 20], [20, 20, 250], [250, 250, 20]], np.uint8
)


def record(height=60, width=80, seed=0, cells=6):
  """Patches of four colours; a class is a colour."""
  rng = np.random.default_rng(seed)
  places = rng.random((cells, 2)) * (height, width)
  rows, columns = np.mgrid[:height, :width]
  far = [np.hypot(rows - y, columns - x) for y, x in places]
  mask = (np.argmin(far, 0) % len(COLOURS)).astype(np.int16)
  return {"image": COLOURS[mask], "label": -1, "id": seed, "mask": mask}


@dataclasses.dataclass(frozen=True)
class Source(interfaces.DataSource):
  """Records of these sizes, over and over."""

  sizes: tuple = ((60, 80), (70, 50), (40, 40))
  length: int = 10
  bad: tuple = ()
  skip_corrupt: bool = False
  num_classes = 0
  fingerprint = "blocks"
  mask_names = ("red", "green", "blue", "yellow")

  def __len__(self):
    return self.length

  def __getitem__(self, index):
    if index in self.bad:
      raise ValueError(f"blocks {index}: torn")
    return record(*self.sizes[index % len(self.sizes)], seed=index)
