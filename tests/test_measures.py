"""Measures of the code that a reader feels; see also `test_floors`."""

import ast
import pathlib

import numpy as np

from kd_jax import interfaces

ROOT = pathlib.Path(__file__).parents[1]
TREES = {
  path.relative_to(ROOT / "kd_jax"): ast.parse(path.read_text())
  for path in sorted((ROOT / "kd_jax").rglob("*.py"))
}
FUNCTIONS = [
  (path, node)
  for path, tree in TREES.items()
  for node in ast.walk(tree)
  if isinstance(node, ast.FunctionDef)
]


def annotations(function):
  """{parameter: its annotation as text, '' without one}."""
  given = function.args
  every = [*given.posonlyargs, *given.args, *given.kwonlyargs]
  every += [x for x in (given.vararg, given.kwarg) if x]
  return {
    x.arg: ast.unparse(x.annotation) if x.annotation else ""
    for x in every
    if x.arg not in ("self", "cls")
  }


def test_a_config_stops_at_the_door():
  takers = [
    (path, node.name)
    for path, node in FUNCTIONS
    if any("ConfigDict" in text for text in annotations(node).values())
  ]
  assert 10 < len(takers) <= 35
  for path, name in takers:
    inside = path.parts[0] in ("build", "config.py")
    assert inside or (path.parts[0] == "tasks" and name == "run"), (path, name)


def test_parameters_have_types():
  found = [t for _, node in FUNCTIONS for t in annotations(node).values()]
  vague = [text for text in found if text in ("", "Any")]
  assert len(found) > 2000 and len(vague) <= 0.04 * len(found)


def test_functions_and_files_are_short():
  functions = [node.end_lineno - node.lineno + 1 for _, node in FUNCTIONS]
  files = [(ROOT / "kd_jax" / path).read_text().count("\n") for path in TREES]
  assert np.percentile(functions, 90) <= 25 and max(functions) <= 60
  assert np.percentile(files, 90) <= 300


def test_nobody_asks_whether_an_interface_has_a_member():
  """They have defaults, so that none has to be looked for."""
  bases = (interfaces.Method, interfaces.TeacherSource, interfaces.DataSource)
  members = {name for base in bases for name in vars(base) if name[0] != "_"}
  assert {"bind", "stored", "skip_corrupt", "describe"} < members
  for path, tree in TREES.items():
    for node in ast.walk(tree):
      asks = isinstance(node, ast.Call) and ast.unparse(node.func) in (
        "getattr",
        "hasattr",
      )
      if asks and isinstance(node.args[1], ast.Constant):
        assert node.args[1].value not in members, (path, ast.unparse(node))


def test_names_of_test_files_are_their_own():
  """Without packages, pytest imports them by their last name alone."""
  names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
  assert len(names) > 100 and len(names) == len(set(names))
