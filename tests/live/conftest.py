"""These tests need PyTorch and timm, and are not collected without them."""

import importlib.util

PACKAGES = ("torch", "timm")
installed = all(importlib.util.find_spec(name) for name in PACKAGES)
collect_ignore_glob = [] if installed else ["test_*.py"]
