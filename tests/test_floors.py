"""The shape of the code: imports go down only, and nothing grows too large."""

import ast
import graphlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "kd_jax"
FLOORS = (
  ("disk", "types", "trees", "resolve", "last_words"),
  ("interfaces", "buckets", "processes"),
  ("lock",),
  ("config", "workdir"),
  ("models", "losses", "align", "data"),
  ("codecs",),
  ("convert", "teachers", "methods"),
  ("train", "evals"),
  ("transfer",),
  ("report",),
  ("preflight",),
  ("build",),
  ("running",),
  ("tasks",),
  ("door",),
  ("main",),
  ("commands",),
  ("cli",),
  ("__main__",),
)
LEVEL = {name: level for level, names in enumerate(FLOORS) for name in names}
# On one floor only these may look at each other, in this direction.
BESIDE = {("teachers", "convert"), ("train", "evals")}
HEAVY = {"torch", "timm", "tensorflow", "torchvision"}
BLOCKS = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.Match)
SOURCES = sorted(PACKAGE.rglob("*.py"))
CONFIGS = sorted((ROOT / "configs").glob("*.py"))
CODE = [*SOURCES, *CONFIGS]
CODE += [*(ROOT / "benchmarks").glob("*.py")]


def floor_of(module):
  """'kd_jax.train.step' -> 'train'; the package itself is above all."""
  parts = module.split(".")
  return parts[1] if len(parts) > 1 else "main"


def imports(tree):
  """All imported modules, with `from kd_jax import x` as 'kd_jax.x'."""
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      yield from ((alias.name, node) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      whole = node.module == "kd_jax"
      names = (
        [f"kd_jax.{a.name}" for a in node.names] if whole else [node.module]
      )
      yield from ((name, node) for name in names)


def name_of(path):
  return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_go_down_only(path):
  own = floor_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
  if own == "__init__":
    return
  for module, _ in imports(ast.parse(path.read_text())):
    other = floor_of(module) if module.startswith("kd_jax") else own
    if other in ("create_model", "load_pretrained", "export_timm"):
      other = "convert"
    if other == own or (own, other) in BESIDE:
      continue
    if module == "kd_jax":
      other = "convert"  # what the public interface is made of
    assert LEVEL[other] < LEVEL[own], f"{own} imports {module}"


def module_of(path):
  """'kd_jax/train/step.py' -> 'kd_jax.train.step'."""
  parts = path.relative_to(ROOT).with_suffix("").parts
  return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def needed_modules(path, known):
  """What a file imports of `known`, wherever in it the import stands."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names if alias.name in known)
    elif isinstance(node, ast.ImportFrom):
      full = [f"{node.module}.{alias.name}" for alias in node.names]
      yield from (f if f in known else node.module for f in full)


def test_no_file_imports_itself_by_a_detour():
  known = {module_of(path): path for path in SOURCES}
  graph = {
    module: {*needed_modules(path, known)} & {*known} - {module}
    for module, path in known.items()
    if module != "kd_jax"  # it imports when asked, see `_LAZY`
  }
  assert sum(map(len, graph.values())) > 200
  graphlib.TopologicalSorter(graph).prepare()  # CycleError names the circle


@pytest.mark.parametrize(
  "folder", sorted({path.parent for path in SOURCES}), ids=name_of
)
def test_folders_stay_small(folder):
  assert len(list(folder.glob("*.py"))) <= 15


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_heavy_packages_are_imported_where_they_are_used(path):
  tree = ast.parse(path.read_text())
  top = {id(node) for node in tree.body}
  for module, node in imports(tree):
    if module.split(".")[0] in HEAVY:
      assert id(node) not in top, f"{module} at module level"


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_configs_import_nothing_else(path):
  found = {module for module, _ in imports(ast.parse(path.read_text()))}
  shared = {name for name in found if name.startswith("configs.common")}
  fields = {"kd_jax.door.fields"} if path.stem == "common" else set()
  assert found - shared - fields <= {"ml_collections"}


def depth(node, level=0):
  """How deep blocks are nested; `elif` does not count as deeper."""
  deepest = level
  for child in ast.iter_child_nodes(node):
    chained = (
      isinstance(child, ast.If)
      and isinstance(node, ast.If)
      and child in node.orelse
    )
    deeper = isinstance(child, BLOCKS) and not chained
    deepest = max(deepest, depth(child, level + deeper))
  return deepest


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_files_and_functions_stay_small(path):
  text = path.read_text()
  assert text.count("\n") <= 400
  for node in ast.walk(ast.parse(text)):
    if isinstance(node, ast.FunctionDef):
      body = node.body[1:] if ast.get_docstring(node) else node.body
      first = body[0].lineno if body else node.lineno
      lines = node.end_lineno - first + 1
      # A config is one long list of fields.
      most = 80 if path in CONFIGS else 40
      assert lines <= most, f"{node.name} has {lines} lines"
      assert depth(node) <= 3, f"{node.name} is nested {depth(node)} deep"
