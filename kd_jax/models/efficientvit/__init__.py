"""EfficientViT of MIT: linear attention at several scales."""
