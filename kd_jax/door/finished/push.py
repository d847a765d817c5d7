"""The student of a run on the Hugging Face hub."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import huggingface_hub
from huggingface_hub import utils

from kd_jax import convert, disk, workdir
from kd_jax.door import arguments, distill
from kd_jax.report import hub_card
from kd_jax.report.compared import record
from kd_jax.report.run import summary

CARD = "README.md"
FILES = ("model.safetensors", "config.json", CARD)
_UNKNOWN = "unknown"  # a licence, as the hub calls it
_SHOWN = 16  # lines of the card
_WRONG = {
  401: "the token is not valid: 'hf auth login' stores another",
  403: "the token may not write there: it needs write access to this owner's "
  "repositories",
  404: "there is no such owner, repository or revision, or the token may not "
  "see it",
}

_T = TypeVar("_T")


class _Job(NamedTuple):
  """What is pushed, and where to."""

  repo: str
  private: bool
  revision: str
  folder: Path


def push(
  run: str | os.PathLike[str],
  repo: str,
  *,
  private: bool = False,
  revision: str = "",
  licence: str = "",
  dry_run: bool = False,
) -> str:
  """Sends a student with its model card to the hub, as timm reads it.

  The card is written to README.md in export/timm of the run, where it can be
  edited: one that names the repository is kept.

  Args:
    run: its folder; a student that was not exported yet is.
    repo: 'owner/name'; it is made if there is none.
    private: whether only its owner sees it.
    revision: a branch, made if there is none; '': main.
    licence: an identifier of the hub, such as 'apache-2.0'; '': unknown.
    dry_run: says what would be sent, and sends nothing.

  Returns:
    The address of the repository.

  Raises:
    ValueError: no such run or student, a repository that cannot be, no token,
      no network, or the hub refuses.
  """
  place = Path(arguments.text("run", run)).expanduser()
  for name, value in (("private", private), ("dry_run", dry_run)):
    if not isinstance(value, bool):
      raise ValueError(f"{name} is {value!r}; it must be True or False")
  revision = arguments.text("revision", revision)
  _check_repo(arguments.text("repo", repo))
  _check_branch(revision)
  folder = _exported(place)
  _write_card(place, folder, repo, arguments.text("licence", licence))
  job = _Job(repo, private, revision, folder)
  token = huggingface_hub.get_token()
  if dry_run:
    summary.say(_plan(job, bool(token)))
    return _address(repo)
  if not token:
    raise ValueError(
      "there is no token for the Hugging Face hub; run 'hf auth login', or set "
      "HF_TOKEN. --dry-run shows what would be sent without one"
    )
  _send(job, token)
  return _address(repo)


def _address(repo: str) -> str:
  return f"{huggingface_hub.HfApi().endpoint}/{repo}"


def _check_repo(repo: str) -> None:
  try:
    utils.validate_repo_id(repo)
    good = repo.count("/") == 1
  except utils.HFValidationError:
    good = False
  if not good:
    raise ValueError(
      f"the repository is {repo!r}; it must be OWNER/NAME, of letters, digits, "
      "'-', '_' and '.', as in 'me/resnet18-birds'"
    )


def _check_branch(revision: str) -> None:
  good = re.fullmatch(r"\w[\w./-]*", revision) and ".." not in revision
  if revision and not good:
    raise ValueError(
      f"revision is {revision!r}; it must be a branch, of letters, digits, "
      "'-', '_', '.' and '/'"
    )


def _exported(run: Path) -> Path:
  """The folder with the student for timm; written if it is not there.

  Raises:
    ValueError: it is no run, or has no student.
  """
  folder = run / "export" / "timm"
  if not (folder / FILES[0]).is_file():
    distill.export_run(run)
  if not (folder / FILES[0]).is_file():
    raise ValueError(
      f"{run} has no student that timm loads; push takes runs that pre-train "
      "one, not detectors"
    )
  return folder


def _write_card(run: Path, folder: Path, repo: str, licence: str) -> None:
  """Writes the card, unless there is one of this repository.

  Raises:
    ValueError: a file of the run is damaged, or the folder cannot be written.
  """
  path = folder / CARD
  known = path.read_text(encoding="utf-8") if path.is_file() else ""
  if f"hf-hub:{repo}" in known:
    _check_kept(path, known, licence)
    return
  found = record.read(run, run.name)
  recipe, about = _papers(run)
  name = recipe["student"]["name"]
  model, _ = convert.load_pretrained(name, folder)
  text = hub_card.text(
    repo,
    model,
    recipe,
    about,
    found.last,
    found.worth,
    licence or _UNKNOWN,
  )
  try:
    workdir.write(path, text)
  except OSError as error:
    raise ValueError(
      f"{path} cannot be written ({error.strerror}); make it writable"
    ) from error


def _check_kept(path: Path, known: str, licence: str) -> None:
  if licence and f"license: {licence}\n" not in known:
    raise ValueError(
      f"{path} is kept, and names another licence than {licence}; edit that "
      "line, or delete the file to have it written anew"
    )


def _papers(run: Path) -> tuple[dict[str, Any], dict[str, Any]]:
  """Config and summary."""
  names = ("config.json", "summary.json")
  recipe, about = (record.json_object(run / name) for name in names)
  return recipe, about


def _plan(job: _Job, known: bool) -> str:
  """What would be sent, for people."""
  card = (job.folder / CARD).read_text(encoding="utf-8").splitlines()
  sizes = {name: (job.folder / name).stat().st_size for name in FILES}
  branch = job.revision or "main"
  kind = "private" if job.private else "public"
  return "\n".join(
    [
      "dry run: nothing is sent",
      f"repository: {_address(job.repo)} ({kind} if new), branch {branch}",
      f"token: {'found' if known else 'none; hf auth login stores one'}",
      *(f"{name:<18} {disk.size(size)}" for name, size in sizes.items()),
      f"card: {job.folder / CARD}, which may be edited; it begins",
      *(f"  {line}".rstrip() for line in card[:_SHOWN]),
    ]
  )


def _send(job: _Job, token: str) -> None:
  """Makes the repository and sends the files in one commit."""
  api = huggingface_hub.HfApi(token=token)

  def asked(call: Callable[[], _T]) -> _T:
    return _answer(job.repo, call)

  asked(lambda: api.create_repo(job.repo, private=job.private, exist_ok=True))
  if job.private and not asked(lambda: api.model_info(job.repo)).private:
    raise ValueError(
      f"{job.repo} is there already, and public; make it private in its "
      "settings, or leave --private out. Nothing was sent"
    )
  if job.revision:
    branch = job.revision
    asked(lambda: api.create_branch(job.repo, branch=branch, exist_ok=True))
  asked(
    lambda: api.upload_folder(
      repo_id=job.repo,
      folder_path=job.folder,
      allow_patterns=list(FILES),
      revision=job.revision or None,
      commit_message="Student pre-trained by kd_jax",
    )
  )
  summary.say(f"{', '.join(FILES)} -> {_address(job.repo)}")


def _answer(repo: str, call: Callable[[], _T]) -> _T:
  """What the hub says.

  Raises:
    ValueError: it refuses, or cannot be reached.
  """
  try:
    return call()
  # The client passes on errors of its HTTP library, which share no base.
  except Exception as error:
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", 0)
    first = (str(error).splitlines() or [""])[0]
    said = f"{type(error).__name__}: {first}"
    if status:
      why = _WRONG.get(status, said)
      raise ValueError(f"the hub refuses {repo} ({status}): {why}") from error
    where = huggingface_hub.HfApi().endpoint
    raise ValueError(
      f"{where} cannot be reached ({said}); try again with a network, the same "
      "command goes on"
    ) from error
