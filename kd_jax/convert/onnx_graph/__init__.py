"""Networks as ONNX.

JAX's own trace of a network is written operation by operation; what depends on
weights alone is computed here. `program.bytes_of` is the entrance.
"""
