"""PoolFormer, ConvFormer, CAFormer."""
