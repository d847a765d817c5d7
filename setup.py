"""What pyproject.toml cannot say: the recipes are a package of the wheel.

`configs/` becomes `kd_jax/configs/`, where `kd_jax.config.load` finds them.
"""

import setuptools

setuptools.setup(
  packages=[*setuptools.find_packages(include=["kd_jax*"]), "kd_jax.configs"],
  package_dir={"kd_jax.configs": "configs"},
)
