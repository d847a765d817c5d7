"""Which taps and weights the fields of ScaleKD need, or refuse."""

import jax
import numpy as np
import pytest

from kd_jax import trees
from kd_jax.methods import scalekd
from kd_jax.types import HEAD

SPECS = {
  "student": {"stage3": (1, 4, 4, 6), "stage4": (1, 17, 8), "logits": (1, 3)},
  "teacher": {
    "block01": (1, 20, 12),
    "stage4": (1, 20, 12),
    "logits": (1, 5),
  },
}


def specs(side):
  return {
    name: jax.ShapeDtypeStruct(shape, np.float32)
    for name, shape in SPECS[side].items()
  }


def shapes(method):
  found = jax.eval_shape(
    lambda key: method.init(key, specs("student"), specs("teacher")),
    jax.random.key(0),
  )
  return trees.flatten(found["params"])


def test_grids_widths_and_layouts_may_differ():
  # Maps of the student, tokens with prefixes of the teacher, and back.
  method = scalekd.Method(target="stage4", resume="block02", heads=(2, 3))
  found = shapes(method)
  assert found["proxy/query"].shape == (16, 12)
  assert found["proxy/pos_embed"].shape == (4, 4, 6)
  assert found["final/pos_embed"].shape == (4, 4, 8)
  assert not any(path.startswith("final/query/") for path in found)
  assert {path.split("/")[0] for path in found} == set(scalekd.FEATURES)


def test_without_the_tail_queries_are_learned():
  method = scalekd.Method(
    terms=("final",), target="stage4", resume="", heads=(2, 3)
  )
  assert shapes(method)["final/query"].shape == (16, 12)
  (phase,) = method.phases()
  assert not phase.needs.resume and phase.needs.teacher == ("stage4",)


def test_what_no_term_reads_is_not_trained():
  frozen = {
    taps: scalekd.Method(student=("stage3", taps)).phases()[0].frozen
    for taps in ("stage4", "final")
  }
  assert frozen["stage4"] == HEAD and frozen["final"] == HEAD[-1:]
  labelled = scalekd.Method(terms=("final", "ce"))
  assert labelled.phases()[0].frozen == () and labelled.reads_labels


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"terms": ("kd",)}, "needs one of the first four"),
    ({"terms": ("final", "angle")}, "has the loss terms"),
    ({"heads": (2,)}, "it holds two values"),
    ({"remat": "some"}, "it can be"),
    ({"kd_temperature": 0}, "must be positive"),
    ({"resume": ""}, "method.resume is empty"),
    ({"resume": "stem"}, "begins at one of"),
    ({"resume": "block2"}, "such as 'block22'"),
    ({"sharpness": 0.0}, "sharpness is 0.0"),
    ({"norm": "group"}, "norm is 'group'"),
    ({"heads": (5, 5)}, "do not divide the teacher's width 12"),
    ({"terms": ("final", "kd")}, "has 3 and the teacher 5"),
    ({"student": ("stage3", "logits")}, "tokens are"),
  ],
)
def test_impossible_fields_are_refused(fields, message):
  fields = {"target": "stage4", "resume": "block02", "heads": (2, 2), **fields}
  with pytest.raises(ValueError, match=message):
    shapes(scalekd.Method(**fields))
