"""The classics' losses against figures of mdistiller's functions."""

import peers

from kd_jax.methods.classic import (
  attention_transfer,
  dkd,
  nst,
  pkt,
  reviewkd,
  sp,
)

GOLDEN = peers.arrays("peers_classic")


def test_attention_transfer():
  def loss(s0, s1, t0, t1):
    return attention_transfer.distance(s0, t0) + attention_transfer.distance(
      s1, t1
    )

  peers.check(GOLDEN, "at", loss, **peers.given(GOLDEN, "at"))


def test_decoupled():
  inputs = peers.given(GOLDEN, "dkd")
  label = inputs.pop("label")

  def loss(student, teacher):
    return dkd.decoupled(
      student, teacher, label, alpha=1, beta=8, temperature=4
    )

  peers.check(GOLDEN, "dkd", loss, **inputs)


def test_neighbours():
  peers.check(GOLDEN, "pkt", pkt.distance, **peers.given(GOLDEN, "pkt"))


def test_similarity():
  # PyTorch flattens (c, h, w); the order does not matter to inner products.
  peers.check(GOLDEN, "sp", sp.distance, **peers.given(GOLDEN, "sp"))


def test_selectivity():
  peers.check(GOLDEN, "nst", nst.distance, **peers.given(GOLDEN, "nst"))


def test_review():
  def loss(s0, s1, s2, t0, t1, t2):
    pairs = ((s0, t0), (s1, t1), (s2, t2))
    return sum(reviewkd.hierarchical(*pair) for pair in pairs)

  inputs = peers.given(GOLDEN, "review_hcl")
  peers.check(GOLDEN, "review_hcl", loss, **inputs)
