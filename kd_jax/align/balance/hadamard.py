"""Hadamard matrices: H H^T = n I with entries 1 and -1.

Sylvester's construction for powers of two; else Paley's, of an order m that
divides n, joined with Sylvester's of n / m. Paley I: m = q + 1 for a prime q
that leaves 3 when divided by 4; Paley II: m = 2 (q + 1) for one that leaves 1.
That covers the widths of nearly all networks (384, 768, 1152, 1280, 1664...).
Prime powers are left out; where nothing fits, a random rotation stands in.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
from jaxtyping import Float


def rotation(order: int, seed: int) -> Float[np.ndarray, "n n"]:
  """An orthogonal matrix that spreads every direction over all channels.

  Args:
    order: number of channels.
    seed: of the random matrix, where there is no Hadamard matrix here.

  Returns:
    A Hadamard matrix / sqrt(n), or a random orthogonal matrix, float64.
  """
  found = hadamard(order)
  if found is not None:
    return found / np.sqrt(order)
  normal = np.random.default_rng(seed).standard_normal((order, order))
  turned, triangle = np.linalg.qr(normal)
  return turned * np.sign(np.diag(triangle))  # uniform over all rotations


def hadamard(order: int) -> Float[np.ndarray, "n n"] | None:
  """A Hadamard matrix; None if these constructions have none."""
  power = 1
  while order % power == 0:
    core = _core(order // power)
    if core is not None:
      return np.kron(scipy.linalg.hadamard(power).astype(float), core)
    power *= 2
  return None


def _core(order: int) -> Float[np.ndarray, "n n"] | None:
  """One that is not joined of smaller ones."""
  if order == 1:
    return np.ones((1, 1))
  if order % 4 == 0 and _is_prime(order - 1):
    return _paley(order - 1)
  half = order // 2
  if order % 4 == 0 and (half - 1) % 4 == 1 and _is_prime(half - 1):
    return _paley_twice(half - 1)
  return None


def _paley(q: int) -> Float[np.ndarray, "n n"]:
  """Of order q + 1; q is 3 modulo 4."""
  skew = np.zeros((q + 1, q + 1))
  skew[0, 1:], skew[1:, 0] = 1, -1
  skew[1:, 1:] = _residues(q)
  return skew + np.eye(q + 1)


def _paley_twice(q: int) -> Float[np.ndarray, "n n"]:
  """Of order 2 (q + 1); q is 1 modulo 4."""
  conference = np.zeros((q + 1, q + 1))
  conference[0, 1:] = conference[1:, 0] = 1
  conference[1:, 1:] = _residues(q)
  entry = np.array([[1.0, 1.0], [1.0, -1.0]])
  zero = np.array([[1.0, -1.0], [-1.0, -1.0]])
  return np.kron(conference, entry) + np.kron(np.eye(q + 1), zero)


def _residues(q: int) -> Float[np.ndarray, "q q"]:
  """1 where the difference of the indices is a square modulo q, else -1."""
  squares = np.zeros(q)
  squares[1:] = -1
  squares[np.unique(np.arange(1, q) ** 2 % q)] = 1
  index = np.arange(q)
  return squares[(index[:, None] - index) % q]


def _is_prime(n: int) -> bool:
  return n > 1 and all(n % k for k in range(2, int(n**0.5) + 1))
