"""Files that images and labels come in: folders, CSV, TFDS, encodings."""
