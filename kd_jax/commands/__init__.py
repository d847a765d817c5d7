"""What `kd-jax` can do, a file each; they import JAX when they run."""
