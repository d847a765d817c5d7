"""Stage-wise distillation: its phases, and its distances against NumPy."""

import functools

import jax
import numpy as np
import pytest

import kd_jax
from kd_jax.build import network_facts
from kd_jax.methods import stagewise
from kd_jax.teachers import random
from kd_jax.train import phases
from kd_jax.types import Batch, Networks, Phase, Teacher

STAGES = ("stage1", "stage2", "stage3", "stage4")
TERMS = (*STAGES, "ce")
RESNET = {
  "layers": (1, 1, 1, 1),
  "channels": (4, 6, 8, 10),
  "stem_width": 4,
  "stem_type": "cifar",
}
VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 4}
VIT |= {"num_heads": 2}
SWIN = {"img_size": 32, "patch_size": 2, "embed_dim": 8, "window_size": 4}
SWIN |= {"depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)}
NETS = {
  "resnet18": RESNET,
  "vit_tiny_patch16_224": VIT,
  "swin_tiny_patch4_window7_224": SWIN,
}


@functools.cache
def pair(student, teacher="resnet18", size=32, **classes):
  """(student, teacher source, teacher variables, Networks)."""
  net = kd_jax.create_model(student, num_classes=5, **NETS[student])
  fields = {"num_classes": 0, **NETS[teacher], **classes}
  source, variables = random.load(teacher, "", fields)
  batch = phases.image_batch(2, size, source)
  frozen = {"teacher": variables, "artifact": {}}
  specs = (
    phases.student_specs(net, batch),
    phases.teacher_specs(source, frozen, batch),
  )
  return (
    net,
    source,
    variables,
    network_facts.networks(net, source.model, specs, size),
  )


def summary(phases):
  return [(p.name, p.train_from, p.end, sorted(p.trainable)) for p in phases]


def test_a_phase_per_stage_and_one_for_the_classifier():
  *_, found = pair("resnet18", channels=(4, 6, 16, 20))
  method = stagewise.Method(TERMS).bind(found)
  phases = method.phases()
  assert summary(phases) == [
    ("stage1", "stem", "stage1", ["student/stage1", "student/stem"]),
    ("stage2", "stage2", "stage2", ["student/stage2"]),
    ("stage3", "stage3", "stage3", ["method/stage3", "student/stage3"]),
    ("stage4", "stage4", "stage4", ["method/stage4", "student/stage4"]),
    ("head", "", "head", ["student/head"]),
  ]
  assert [p.judge for p in phases] == [*STAGES, ""]
  assert [p.optim for p in phases] == [(("clip_norm", 1.0),), (), (), (), ()]
  assert sum(p.steps_frac for p in phases) == pytest.approx(1)
  assert phases[-1].steps_frac == pytest.approx(0.2)
  # Equal widths need no adapter; nothing is standardised in one family.
  own = method.init(jax.random.key(0), found.student, found.teacher)
  assert sorted(own["params"]) == ["stage3", "stage4"]
  assert own["params"]["stage3"]["kernel"].shape == (8, 16)
  assert not np.any(own["params"]["stage3"]["bias"])
  assert method.artifact_taps == ()


def test_without_labels_the_stages_are_all():
  *_, found = pair("resnet18")
  bound = stagewise.Method(STAGES, hand_over="last", clip=0.0).bind(found)
  phases = bound.phases()
  assert [p.name for p in phases] == list(STAGES)
  assert sum(p.steps_frac for p in phases) == pytest.approx(1)
  assert {p.judge for p in phases} == {""} and {p.optim for p in phases} == {()}


def test_a_stage_without_weight_learns_with_the_next():
  *_, found = pair("resnet18")
  phases = stagewise.Method(("stage2", "stage4")).bind(found).phases()
  assert summary(phases) == [
    (
      "stage2",
      "stem",
      "stage2",
      ["student/stage1", "student/stage2", "student/stem"],
    ),
    ("stage4", "stage3", "stage4", ["student/stage3", "student/stage4"]),
  ]
  (first, *_) = stagewise.Method(("stem", *STAGES)).bind(found).phases()
  assert summary([first])[0] == ("stem", "stem", "stem", ["student/stem"])


def test_joint_is_one_phase_over_all_stages():
  *_, found = pair("resnet18", channels=(8, 8, 8, 8))
  phases = stagewise.Method(TERMS, joint=True).bind(found).phases()
  assert [(p.name, p.end, p.judge) for p in phases] == [
    ("stages", "stage4", "stages"),
    ("head", "head", ""),
  ]
  every = {f"student/{g}" for g in ("stem", *STAGES)}
  assert set(phases[0].trainable) - every == {
    "method/stage1",
    "method/stage2",
    "method/stage4",
  }
  assert every <= set(phases[0].trainable)


@pytest.mark.parametrize(
  ("student", "tap", "last", "head"),
  [
    # Normalisation in front of pooling belongs to the stages.
    ("swin_tiny_patch4_window7_224", "final", "neck", ["head"]),
    # A ViT with a class token: what is pooled was normalised before.
    ("vit_tiny_patch16_224", "final", "neck", ["head"]),
    ("resnet18", "stage4", "stage4", ["head"]),
  ],
)
def test_the_last_map_is_the_one_that_is_pooled(student, tap, last, head):
  *_, found = pair(student)
  bound = stagewise.Method(TERMS, budget="equal").bind(found)
  assert bound.cuts[-1].student == tap and last in bound.cuts[-1].groups
  assert list(bound.head) == head
  *_, stage, classifier = bound.phases()
  assert stage.train_from == "stage4" and classifier.train_from == ""
  assert stage.end == ("stage4" if tap == "stage4" else "head")
  assert "student/head" not in stage.trainable
  plain = stagewise.Method(TERMS, last="stage4", budget="equal").bind(found)
  assert plain.cuts[-1].student == "stage4"
  assert set(plain.head) == {*head, last} - {"stage4"}


@pytest.mark.parametrize(
  "teacher", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"]
)
def test_a_cnn_learns_from_a_transformer(teacher):
  """Stages pair up by number, tokens are maps, channels are standardised."""
  net, source, variables, found = pair("resnet18", teacher)
  method = stagewise.Method(TERMS, budget="equal").bind(found)
  assert not found.same_family
  assert {c.comparison.normalise for c in method.cuts} == {"standard"}
  assert method.artifact_taps == ("stage1", "stage2", "stage3", "final")
  maps = {t: found.teacher[t] for t in method.artifact_taps}
  artifact = {
    tap: {
      "mean": np.zeros(spec.shape[-1], np.float32),
      "basis": np.eye(spec.shape[-1], dtype=np.float32),
      "singular_values": np.ones(spec.shape[-1], np.float32),
      "channel_variance": np.ones(spec.shape[-1], np.float32),
    }
    for tap, spec in maps.items()
  }
  own = method.init(jax.random.key(0), found.student, found.teacher)

  def losses(image):
    batch = Batch(image, np.zeros(2, np.int32), np.ones(2, np.float32))
    taps = source({"teacher": variables}, batch)
    student = net.init_with_output(jax.random.key(1), image)[0]
    given = {**own, "artifact": artifact}, student, taps, batch
    return [p.losses(*given)[0] for p in method.phases()]

  image = jax.ShapeDtypeStruct((2, 32, 32, 3), np.float32)
  terms = [sorted(t) for t in jax.eval_shape(losses, image)]
  assert terms == [["stage1"], ["stage2"], ["stage3"], ["stage4"], ["ce"]]


@pytest.fixture(scope="module")
def twins():
  """A student with the weights of its teacher, and what both say."""
  net, source, variables, found = pair("resnet18", num_classes=5)
  rng = np.random.default_rng(0)
  image = rng.random((4, 32, 32, 3), np.float32)
  batch = Batch(image, np.arange(4, dtype=np.int32), np.ones(4, np.float32))

  @jax.jit
  def run(variables, batch):
    taps = net.apply(variables, batch.image, train=False)
    return taps, source({"teacher": variables}, batch).taps

  return found, *run(variables, batch), batch


def test_the_teacher_s_own_weights_have_no_distance(twins):
  found, taps, teacher, batch = twins
  for joint in (False, True):
    method = stagewise.Method(TERMS, joint=joint).bind(found)
    seen = method.metrics({}, taps, Teacher(teacher, None), batch)
    assert len(seen) == 9
    for top, bottom in seen.values():
      assert not np.any(top) and np.all(np.asarray(bottom) > 0)
  moved = {k: v + 0.1 for k, v in taps.items()}
  seen = method.metrics({}, moved, Teacher(teacher, None), batch)
  assert all(np.all(np.asarray(top) > 0) for top, _ in seen.values())


def test_joint_terms_sum_to_the_mean_of_the_stages(twins):
  found, taps, teacher, batch = twins
  moved = {k: 1.1 * v + 0.1 for k, v in taps.items()}
  given = {}, moved, Teacher(teacher, None), batch
  apart, joint = (
    [
      p.losses(*given)[0]
      for p in stagewise.Method(STAGES, joint=j).bind(found).phases()
    ]
    for j in (False, True)
  )
  (joint,) = joint
  for term, stage in zip(STAGES, apart, strict=True):
    want = float(np.mean((moved[term] - teacher[term]) ** 2))
    assert float(stage[term]) == pytest.approx(want, rel=1e-5)
    assert float(joint[term]) == pytest.approx(want / 4, rel=1e-5)
  metrics = stagewise.Method(STAGES).bind(found).metrics(*given)
  top, bottom = (np.sum(x) for x in metrics["stages"])
  assert top / bottom == pytest.approx(float(sum(joint.values())), rel=1e-5)
  top, bottom = (np.sum(x) for x in metrics["stage2_error"])
  target = np.float64(teacher["stage2"])
  gap = np.float64(moved["stage2"]) - target
  want = np.sum(gap**2) / np.sum(target**2)
  assert top / bottom == pytest.approx(want, rel=1e-5)


def test_steps_follow_the_work_of_the_stages():
  specs = {s: jax.ShapeDtypeStruct((1, 2, 2, 4), np.float32) for s in STAGES}
  groups = [frozenset(("stem", *STAGES[: i + 1])) for i in range(4)]
  ends = dict(zip(STAGES, (10.0, 20.0, 60.0, 61.0), strict=True))
  found = Networks(
    student=specs,
    teacher=specs,
    flops=ends.__getitem__,
    groups=dict(zip(STAGES, groups, strict=True)) | {"logits": groups[-1]},
    same_family=True,
  )
  shares = stagewise.Method(STAGES).bind(found).shares
  # 10, 10, 40 and 1: three would have less than an eighth after raising one.
  np.testing.assert_allclose(shares, [0.1458, 0.1458, 0.5833, 0.125], atol=1e-4)
  equal = stagewise.Method(STAGES, budget="equal").bind(found).shares
  assert equal == (0.25,) * 4
  ends["stage4"] = float("nan")
  with pytest.raises(ValueError, match="method.budget=equal"):
    stagewise.Method(STAGES).bind(found)


def test_stages_are_counted_by_what_they_compute():
  net, *_, found = pair("resnet18")
  ends = [found.flops(tap) for tap in ("stem", *STAGES)]
  assert all(a < b for a, b in zip(ends, ends[1:], strict=False))
  # 3x3 convolution of 3 to 4 channels at 32 pixels.
  macs = sum(
    3 * 4 * (3 - (i == 0) - (i == 31)) * (3 - (j == 0) - (j == 31))
    for i in range(32)
    for j in range(32)
  )
  assert ends[0] == pytest.approx(2 * macs, rel=0.2)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"terms": ("stage4", "kl")}, "loss terms.*'ce'.*stage4; got"),
    ({"terms": ("stage1", "ce")}, "needs stage4"),
    ({"adapter": "conv"}, "method.adapter is 'conv'; it can be"),
    ({"size": "max"}, "method.size is 'max'"),
    ({"hand_over": "first"}, "method.hand_over is 'first'"),
    ({"head_frac": 1.0}, "method.head_frac is 1.0"),
    ({"clip": -1.0}, "clip=-1.0"),
  ],
)
def test_fields_that_are_not_allowed_are_named(fields, message):
  with pytest.raises(ValueError, match=message):
    stagewise.Method(**{"terms": TERMS, **fields})


def test_networks_that_do_not_fit_are_named():
  *_, found = pair("resnet18", channels=(8, 8, 8, 8))
  with pytest.raises(ValueError, match="4 channels and the teacher's 8"):
    method = stagewise.Method(TERMS, adapter="none").bind(found)
    phases.check_method(method, (found.student, found.teacher))
  vectors = {"feature": found.teacher["feature"]}
  bank = Networks(**{**vars(found), "teacher": vectors})
  with pytest.raises(ValueError, match="the map 'stage1' of the teacher"):
    stagewise.Method(TERMS).bind(bank)
  with pytest.raises(ValueError, match="the map 'final' of the student"):
    stagewise.Method(TERMS, last="final").bind(found)
  headless = {**found.groups, "logits": found.groups["stage4"]}
  bare = Networks(**{**vars(found), "groups": headless})
  with pytest.raises(ValueError, match="ce trains the student's classifier"):
    stagewise.Method(TERMS).bind(bare)
  assert len(stagewise.Method(STAGES).bind(bare).phases()) == 4
  assert all(
    isinstance(p, Phase) for p in stagewise.Method(TERMS).bind(found).phases()
  )
