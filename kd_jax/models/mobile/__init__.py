"""Mobile networks: MobileNet V1-V3, EfficientNet, MnasNet, FBNet."""
