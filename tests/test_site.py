"""The documentation as a site: its links lead on, and it loads nothing."""

import importlib.util
import os
import re
import subprocess
import sys
import urllib.parse
from html.parser import HTMLParser

import pytest

import runs

ROOT = runs.ROOT
EXTERNAL = re.compile(r"[a-z]+:|//")


def load_hook():
  path = ROOT / "docs" / "theme" / "hook.py"
  spec = importlib.util.spec_from_file_location("hook", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


HOOK = load_hook()


@pytest.mark.parametrize(
  "page, text, expected",
  [
    ("index.md", "[a](docs/start.md#use)", "[a](start.md#use)"),
    ("index.md", "![](docs/scenes.png)", "![](scenes.png)"),
    ("start.md", "[a](../README.md)", "[a](index.md)"),
    ("start.md", "[a](bank.md)", "[a](bank.md)"),
    ("start.md", "[a](../LICENSE)", "[a](source/LICENSE.md)"),
    ("start.md", "[a](https://jax.dev/x.md) [b](#c)", None),
    (
      "start.md",
      "`configs/export.py`",
      "[`configs/export.py`](source/configs/export.py.md)",
    ),
    ("start.md", "`docs/bank.md`", "[`docs/bank.md`](bank.md)"),
    ("start.md", "`kd_jax/methods/` `kd_jax/none.py`", None),
    ("start.md", "```sh\n[a](../LICENSE) `configs/export.py`\n```", None),
  ],
)
def test_links_and_named_files_lead_to_pages(page, text, expected):
  assert HOOK.rewritten(page, text) == (text if expected is None else expected)


def test_only_what_is_named_becomes_a_page():
  text = "`kd_jax/cli.py` `kd_jax/no.py` [l](../LICENSE) [r](../README.md)"
  assert HOOK._wanted("start.md", text) == {"kd_jax/cli.py", "LICENSE"}


class Links(HTMLParser):
  """Where a page points, what it loads, and the anchors that it has."""

  def __init__(self, path):
    super().__init__()
    self.points, self.loads, self.anchors = [], [], set()
    self.feed(path.read_text())

  def handle_starttag(self, tag, attrs):
    attrs = dict(attrs)
    self.anchors.update(filter(None, [attrs.get("id"), attrs.get("name")]))
    where = attrs.get("src") or attrs.get("href")
    if where and (tag == "a" or attrs.get("rel") == "canonical"):
      self.points.append(where)
    elif where:
      self.loads.append(where)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
  pytest.importorskip("mkdocstrings", reason="requirements-dev.txt adds it")
  out = tmp_path_factory.mktemp("site")
  command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", out]
  env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
  done = subprocess.run(
    list(map(str, command)), cwd=ROOT, env=env, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  assert "WARNING" not in done.stderr
  return {path: Links(path) for path in sorted(out.rglob("*.html"))}


@pytest.mark.slow
def test_the_site_loads_nothing_from_elsewhere_and_its_links_lead_on(site):
  assert len(site) > 100
  for page, links in site.items():
    assert not [x for x in links.loads if EXTERNAL.match(x)], page
    for link in [*links.points, *links.loads]:
      if page.name == "404.html" or EXTERNAL.match(link):
        continue
      path, _, anchor = link.partition("#")
      target = page.parent / urllib.parse.unquote(path) if path else page
      assert target.exists(), (page, link)
      found = site.get(target.resolve())
      assert not anchor or urllib.parse.unquote(anchor) in found.anchors, link
