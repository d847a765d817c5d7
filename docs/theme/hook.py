"""Makes pages of the site from what lies outside of docs/.

The README is the home page; CONTRIBUTING and CHANGELOG are pages. A file of the
repository that a page links to, or names as `kd_jax/...`, becomes a page of its
own under source/, so that the same Markdown works on a forge and on the site,
and the site needs no forge.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from mkdocs.config.defaults import MkDocsConfig
  from mkdocs.structure.files import Files
  from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
  "README.md": "index.md",
  "CONTRIBUTING.md": "contributing.md",
  "CHANGELOG.md": "changelog.md",
}
"""Markdown of the repository's root, and the page that it becomes."""

_ROOTS = {page: path for path, page in PAGES.items()}
_FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!\w+:|#)([^)\s#]+)(#[^)\s]*)?\)")
_NAMED = re.compile(
  r"(?<![`\[])`((?:kd_jax|configs|docs|tests|launch|benchmarks)/[\w./-]+)`"
  r"(?![`\]])"
)
_NOTEBOOK = re.compile(r"notebooks/(\w+)\.ipynb")
_LANGUAGES = {".py": "python", ".sh": "sh", ".sbatch": "sh", ".toml": "toml"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
  """Adds the home page and the sources that pages point at."""
  from mkdocs.structure.files import File, InclusionLevel

  for path, page in PAGES.items():
    text = (ROOT / path).read_text(encoding="utf-8")
    files.append(File.generated(config, page, content=text))
  texts = {
    file.src_uri: file.content_string
    for file in files
    if file.src_uri.endswith(".md")
  }
  wanted = {
    path for name, text in texts.items() for path in _wanted(name, text)
  }
  for path in sorted(wanted):
    file = File.generated(config, _page_of(path), content=_source_page(path))
    file.inclusion = InclusionLevel.NOT_IN_NAV
    files.append(file)
  return files


def on_page_markdown(
  markdown: str, page: Page, config: MkDocsConfig, files: Files
) -> str:
  """Points links and names of files at pages of the site."""
  del config, files
  return rewritten(page.file.src_uri, markdown)


def rewritten(name: str, markdown: str) -> str:
  """The text of a page of docs/ with links that work on the site."""
  if name.startswith("source/"):
    return markdown

  def link(match: re.Match[str]) -> str:
    target = _on_site(_path(name, match[1]))
    return f"]({_relative(target, name)}{match[2] or ''})"

  def named(match: re.Match[str]) -> str:
    if not (ROOT / match[1]).is_file():
      return match[0]
    return f"[`{match[1]}`]({_relative(_on_site(match[1]), name)})"

  parts = _FENCE.split(markdown)
  parts[::2] = [_NAMED.sub(named, _LINK.sub(link, x)) for x in parts[::2]]
  return "".join(parts)


def _wanted(name: str, text: str) -> set[str]:
  """The files outside of docs/ that a page links to or names."""
  prose = "".join(_FENCE.split(text)[::2])
  found = {_path(name, match[1]) for match in _LINK.finditer(prose)}
  found |= {match[1] for match in _NAMED.finditer(prose)}
  outside = {x for x in found if _on_site(x).startswith("source/")}
  return {x for x in outside if (ROOT / x).is_file()}


def _path(name: str, target: str) -> str:
  """A link's path in the repository; `name` is a page's in docs/."""
  inside = posixpath.join("docs", posixpath.dirname(name))
  folder = "" if name in _ROOTS else inside
  path = posixpath.normpath(posixpath.join(folder, target))
  # Its source can be read; a notebook's own text is JSON with pictures.
  return _NOTEBOOK.sub(r"notebooks/src/\1.py", path)


def _on_site(path: str) -> str:
  """Where a file of the repository is on the site; a folder's path stays."""
  if path in PAGES:
    return PAGES[path]
  if path.startswith("docs/"):
    return path.removeprefix("docs/")
  return _page_of(path)


def _page_of(path: str) -> str:
  return f"source/{path}.md"


def _relative(target: str, name: str) -> str:
  return posixpath.relpath(target, posixpath.dirname(name) or os.curdir)


def _source_page(path: str) -> str:
  """A page that shows a file, and that the search leaves out."""
  text = (ROOT / path).read_text(encoding="utf-8")
  language = _LANGUAGES.get(Path(path).suffix, "text")
  front = f"---\ntitle: {path}\nsearch:\n  exclude: true\n---\n\n"
  return f"{front}# `{path}`\n\n```````{language}\n{text.rstrip()}\n```````\n"
