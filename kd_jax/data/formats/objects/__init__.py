"""Files that say where the objects of images are."""
