"""What a sweep says of a cell that did not end well."""

import pytest

from kd_jax.preflight import sweep


@pytest.mark.parametrize(
  ("text", "said"),
  [
    (
      "import os\nos.kill(os.getpid(), 9)",
      "was ended by signal 9; try another",
    ),
    ("raise ValueError('two\\nlines')", "lines"),
  ],
)
def test_a_cell_that_fails_says_why_in_one_line(tmp_path, text, said):
  recipe = tmp_path / "recipe.py"
  recipe.write_text(text)
  cell = sweep.Cell("it", str(recipe), "v5e-8", 8, (), 0.0)
  found = sweep.in_a_process(60)(cell, tmp_path)
  assert said in found and "\n" not in found
