"""TinyViT."""
