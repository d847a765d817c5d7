"""The README.md of an exported detector."""

from __future__ import annotations

from collections.abc import Sequence

from kd_jax.transfer.detection.detector import Detector

_SHOWN = 10
_TEXT = """\
# A detector on {name}, trained by kd_jax

- classes: {classes}
- canvas: {high} x {wide}
- detections per image: {count}
- masks: {masks}

`stablehlo/model.bin` is the whole network: normalisation, proposals,
suppression and masks. It needs `pip install jax flatbuffers` and runs on CPU,
CUDA, ROCm and TPU. `detector.json` holds the names of the classes.

```python
import numpy as np
from jax import export

model = export.deserialize(open("stablehlo/model.bin", "rb").read())
found = model.call(images, sizes)
```

`images` are uint8 RGB (n, {high}, {wide}, 3): every image, scaled to fit, in
the upper left corner. `sizes` are int32 (n, 2): their heights and widths there.

`found["boxes"]` (n, {count}, 4) are x0, y0, x1, y1 in pixels of the canvas,
`found["scores"]` (n, {count}) fall and are 0 where there is nothing,
`found["classes"]` (n, {count}) are rows of the names, -1 where there is none.
{m}"""
_MASKS = """\
`found["masks"]` (n, {count}, s, s) are probabilities inside the box.
"""


def text(
  model: Detector,
  name: str,
  canvas: tuple[int, ...],
  classes: Sequence[str],
) -> str:
  """What the detector is and how to call it.

  Args:
    model: the network.
    name: architecture of its backbone.
    canvas: height and width of the images, pixels.
    classes: names.
  """
  shown = ", ".join(classes[:_SHOWN])
  more = f" and {len(classes) - _SHOWN} more" if len(classes) > _SHOWN else ""
  return _TEXT.format(
    name=name,
    classes=shown + more,
    high=canvas[0],
    wide=canvas[1],
    count=model.detections,
    masks="yes" if model.masks else "no",
    m=_MASKS.format(count=model.detections) if model.masks else "",
  )
