import numpy as np
import pytest

from kd_jax.evals import top1
from kd_jax.evals.features import Features

LOGITS = np.float32([[3, 1, 2], [0, 5, 1], [1, 2, 3], [4, 0, 0]])
TRAIN = Features(LOGITS[:1], np.array([0]))


def test_share_of_correct_rows():
  found = top1.evaluate(TRAIN, Features(LOGITS, np.array([0, 1, 1, 0])))
  assert found == {"top1": 0.75}


def test_labels_beyond_the_logits_are_an_error():
  with pytest.raises(ValueError, match="3 entries for labels up to 7"):
    top1.evaluate(TRAIN, Features(LOGITS, np.array([0, 1, 7, 0])))
  with pytest.raises(ValueError, match="top1 needs labels"):
    top1.evaluate(TRAIN, Features(LOGITS, np.array([0, 1, -1, 0])))
