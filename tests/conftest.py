"""Settings of all tests: CPU, and one compilation cache for all processes."""

import gc
import importlib.metadata
import os
import pathlib
import sys
import tempfile

CACHE = pathlib.Path(__file__).parents[1] / ".pytest_cache" / "xla"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
# Without kept bytecode each of hundreds of processes compiles all sources.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Compiling is most of what the tests cost; their programs run for milliseconds.
FLAGS = ["--xla_backend_optimization_level=0"]
if importlib.metadata.version("jaxlib") < "0.11":  # unknown to later ones
  FLAGS.append("--xla_cpu_use_fusion_emitters=false")
  FLAGS.append("--xla_cpu_parallel_codegen_split_count=1")
os.environ.setdefault("XLA_FLAGS", " ".join(FLAGS))
# Tracing makes much that lives on; looking through it all costs each program.
gc.set_threshold(50_000, 20, 20)
# Listings and labels of data sets are kept there; not in the user's own cache.
os.environ.setdefault("KD_JAX_CACHE", tempfile.mkdtemp(prefix="kd_jax_"))
