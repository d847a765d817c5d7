"""What a run takes on a TPU slice, compiled without one."""
