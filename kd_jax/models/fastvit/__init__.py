"""FastViT and the image towers of MobileCLIP."""
