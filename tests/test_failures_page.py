"""Every message that docs/failures.md quotes is one that the code can print."""

import ast
import re

import runs

ROOT = runs.ROOT
PAGE = (ROOT / "docs" / "failures.md").read_text()
QUOTED = re.findall(r"^-   `([^`\n]+)`$", PAGE, re.MULTILINE)
SHORT = 15  # letters: too few to tell a message


def templates():
  """Of every text in the code: its fixed parts, and a pattern of the whole."""
  for folder in ("kd_jax", "configs"):
    for path in (ROOT / folder).rglob("*.py"):
      for node in ast.walk(ast.parse(path.read_text())):
        parts = fixed(node)
        if len("".join(parts)) >= SHORT:
          yield parts, ".*".join(map(re.escape, parts))


def fixed(node):
  """The text between the values of an f-string; a plain string has one part."""
  if isinstance(node, ast.Constant) and isinstance(node.value, str):
    return [node.value]
  if not isinstance(node, ast.JoinedStr):
    return []
  parts = [""]
  for each in node.values:
    if isinstance(each, ast.Constant):
      parts[-1] += each.value
    else:
      parts.append("")
  return parts


def test_the_code_prints_what_is_quoted():
  assert len(QUOTED) >= 25 and len(set(QUOTED)) == len(QUOTED)
  missing = set(QUOTED)
  for parts, pattern in templates():
    for line in [x for x in missing if all(part in x for part in parts)]:
      if re.search(f"^error: {pattern}|{pattern}$", line):
        missing.remove(line)
  assert not missing


def test_every_message_has_an_answer():
  answers = re.findall(r"^-   `[^`\n]+`\n\n    \S", PAGE, re.MULTILINE)
  assert len(answers) == len(QUOTED)
