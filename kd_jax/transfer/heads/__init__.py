"""Heads for segmentation: a file each, which defines `Head`."""
