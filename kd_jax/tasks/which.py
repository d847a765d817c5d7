"""Which teacher, which student: a page with what one chooses by.

Parameters and operations are counted as in the list of models; nothing is
downloaded. Licences are those of `convert.licences`, and with timm installed
its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from kd_jax import models, workdir
from kd_jax.convert import licences
from kd_jax.tasks import models as listing

_TITLES = ("parameters (M)", "GFLOPs", "features", "input")

_TEXT = """\
# Which teacher, which student

Written by `python -m kd_jax.main --config configs/which.py
--config.output=docs/which.md`; GFLOPs as in [the list of models](models.md).

## Teachers

{teachers}
A larger teacher costs its operations for every image of a run; a
[bank](bank.md) pays them once. Those with `ft_in1k` know ImageNet's classes,
the others learned without them. **Read the licence first.** DINOv3's is its own
and not Apache; `cc-by-nc-4.0` forbids commercial use. Whether it binds a
student that learned from such weights is no question for software.
`kd-jax models` and `kd-jax distill` name such licences, too.

## Students

{students}
Students start untrained, so that no licence but the teacher's can bind them.
RepViT, FastViT, RepVGG and MobileOne are [exported](export.md) without
branches. With KDEP, a student as wide as the teacher, or less, has a target of
its own for each feature; wider ones get the teacher's directions again.
"""


def run(config: ConfigDict, where: str | Path) -> str:
  """Prints the page; writes `config.output` if it is set.

  Args:
    config: see configs/which.py.
    where: not looked at.

  Raises:
    ValueError: a name is not known, or the file cannot be written.
  """
  del where
  page = _TEXT.format(
    teachers=_table(config.teachers), students=_table(config.students)
  )
  print(page)
  if config.output:
    path = Path(config.output)
    try:
      path.parent.mkdir(parents=True, exist_ok=True)
      workdir.write(path, page)
    except OSError as error:
      raise ValueError(
        f"{path} cannot be written ({error.strerror}); give another file with "
        "--config.output"
      ) from error
  return page


def _table(names: Sequence[str]) -> str:
  """A row per network; those without a tag have no licence to tell."""
  titles = ("network", *_TITLES)
  if any("." in name for name in names):
    titles = ("weights", *_TITLES, "licence")
  rows = [titles, ("-",) * len(titles)]
  for name in names:
    architecture, _, tag = name.partition(".")
    row = listing.row(architecture, models.create_model(architecture))
    _, parameters, flops, width, size, *_ = row.cells()
    licence = licences.of(name) or "not told by timm" if tag else ""
    cells = (f"`{name}`", parameters, flops, width, size, licence)
    rows.append(cells[: len(titles)])
  return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)
