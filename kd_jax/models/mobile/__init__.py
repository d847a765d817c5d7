"""Mobile networks: MobileNet V1-V4, EfficientNet, MnasNet, FBNet."""
