from __future__ import annotations

import csv
import io

import numpy as np

from kd_jax.report import tables

TABLE = tables.Table.of(
  "Classes",
  ("class", "IoU", "samples"),
  [("cat|dog, both", 1 / 3, np.int64(1200)), ("void", None, 0)],
)


def test_a_table_comes_back_from_its_file(tmp_path):
  path = tables.keep(tmp_path, "classes", TABLE)
  assert path == tmp_path / "tables" / "classes.json"
  assert tables.read(tmp_path) == {"classes": TABLE}
  tables.keep(tmp_path, "b", tables.Table.of("b", ("x",), [(float("nan"),)]))
  assert tables.read(tmp_path)["b"].rows == (("nan",),)
  assert tables.read(tmp_path / "elsewhere") == {}


def test_markdown_and_csv():
  assert tables.markdown(TABLE).splitlines() == [
    "**Classes**",
    "",
    "| class | IoU | samples |",
    "| - | - | - |",
    "| cat\\|dog, both | 0.3333 | 1,200 |",
    "| void | - | 0 |",
  ]
  rows = [*csv.reader(io.StringIO(tables.csv(TABLE)))]
  assert rows[1] == ["cat|dog, both", str(1 / 3), "1200"]
  assert rows[2] == ["void", "", "0"]
