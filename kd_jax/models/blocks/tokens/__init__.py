"""Blocks of networks whose maps are tokens."""
