"""These tests need libtpu, which needs no TPU, and else are not collected."""

import importlib.util

import jax
import pytest

installed = importlib.util.find_spec("libtpu")
collect_ignore_glob = [] if installed else ["test_*.py"]


@pytest.fixture(autouse=True, scope="session")
def compiled_anew():
  """Without a TPU a program that was compiled for one cannot be read back."""
  jax.config.update("jax_enable_compilation_cache", False)
  yield
  jax.config.update("jax_enable_compilation_cache", True)
