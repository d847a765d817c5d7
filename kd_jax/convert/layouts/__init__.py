"""Students under the names that detectors give to their backbones.

A file per library; each defines LAYOUT.
"""
