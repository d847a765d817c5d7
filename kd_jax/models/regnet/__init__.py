"""RegNetX and RegNetY."""
