"""Distils vision backbones from strong frozen teachers, without labels."""
