"""Makes the notebooks from `notebooks/src`, and runs them.

python -m notebooks.build [NAME ...]

Each runs in an empty folder on this machine; what it prints and draws is kept
in `notebooks/NAME.ipynb`, where GitHub and Colab show it. Needs
requirements-dev.txt.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path

import jupytext
import nbclient
import nbformat

HERE = Path(__file__).parent
SOURCES = {path.stem: path for path in sorted((HERE / "src").glob("*.py"))}
_PATIENCE = 600  # seconds for one cell
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def read(name: str) -> nbformat.NotebookNode:
  """A notebook without outputs, the same each time.

  Args:
    name: a key of `SOURCES`.
  """
  book = jupytext.read(SOURCES[name])
  for number, cell in enumerate(book.cells):
    cell.id = f"cell-{number}"
  book.metadata = nbformat.NotebookNode(
    kernelspec={
      "display_name": "Python 3",
      "language": "python",
      "name": "python3",
    },
    language_info={"name": "python"},
  )
  return book


def execute(book: nbformat.NotebookNode, folder: Path) -> None:
  """Runs the cells in a folder and puts in what they print.

  Args:
    book: is changed.
    folder: where the kernel runs.

  Raises:
    CellExecutionError: a cell failed.
  """
  root, old = str(HERE.parent), os.environ.get("PYTHONPATH", "")
  client = nbclient.NotebookClient(
    book,
    timeout=_PATIENCE,
    kernel_name="python3",
    record_timing=False,
    resources={"metadata": {"path": str(folder)}},
  )
  environment = {"PYTHONPATH": os.pathsep.join(filter(None, (root, old)))}
  client.execute(env={**os.environ, **environment})
  for cell in book.cells:
    outputs = cell.get("outputs", [])
    cell.outputs = [_tidy(each, folder) for each in outputs]
    if cell.cell_type != "code":
      del cell["outputs"]


def _tidy(output: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
  """An output without this machine's folders."""
  real, asked = str(folder.resolve()), str(folder)
  if "text" in output:
    text = _ESCAPES.sub("", output.text)
    output.text = text.replace(real, ".").replace(asked, ".")
  return output


def main(names: list[str]) -> None:
  """Builds these notebooks; all if none is named."""
  unknown = sorted(set(names) - set(SOURCES))
  if unknown:
    raise SystemExit(f"there is no {unknown}; there are {list(SOURCES)}")
  for name in names or SOURCES:
    book = read(name)
    with tempfile.TemporaryDirectory() as folder:
      execute(book, Path(folder))
    nbformat.write(book, HERE / f"{name}.ipynb")
    print(HERE / f"{name}.ipynb")


if __name__ == "__main__":
  main(sys.argv[1:])
