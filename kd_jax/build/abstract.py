"""An experiment of shapes alone: it needs neither images nor weights.

Networks, method, phases and step are those of the run; the teacher's variables
are shapes, and so is all that the step reads.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

import kd_jax
from kd_jax import config as config_lib
from kd_jax import resolve
from kd_jax.align import basis as basis_lib
from kd_jax.build import experiment as experiment_lib
from kd_jax.build import images, networks
from kd_jax.build.teachers import joined
from kd_jax.codecs.base import CodecLike
from kd_jax.data import bank as bank_lib
from kd_jax.data import stand_in
from kd_jax.data.bank import compatibility
from kd_jax.data.bank.described import Described
from kd_jax.interfaces import DataSource
from kd_jax.models.backbone import variable_shapes
from kd_jax.preflight import topologies
from kd_jax.preflight.topologies import Topology
from kd_jax.teachers import bank as bank_teacher
from kd_jax.teachers import none, online
from kd_jax.train import mesh as mesh_lib
from kd_jax.train import phases
from kd_jax.train.experiment import Evaluate, Experiment, Pictures
from kd_jax.train.teacher.teaching import Teaching
from kd_jax.types import Specs

_NETWORKS = ("online", "random")


@dataclasses.dataclass(frozen=True)
class Plan:
  """An experiment that can be compiled, and not run.

  Attributes:
    topology: the slice.
    experiment: its teacher's variables are `jax.ShapeDtypeStruct`.
    assumed: what stands in for things that are not here, for people.
  """

  topology: Topology
  experiment: Experiment
  assumed: tuple[str, ...]


def planned(config: ConfigDict, where: str | Path) -> Plan:
  """The experiment of `config` on the slice `config.topology`.

  Args:
    config: of the task 'pretrain'.
    where: the workdir; nothing is written.

  Raises:
    ValueError: as `build.experiment`; no such slice, no libtpu, or a teacher
      that cannot be described.
  """
  if config.price_per_chip_hour < 0:
    raise ValueError(
      f"price_per_chip_hour is {config.price_per_chip_hour}; it must be at "
      "least 0"
    )
  topology = topologies.find(config.topology)
  devices = topologies.devices(topology)
  notes: list[str] = []
  classes = config.student.overrides.get("num_classes", 0)
  images_of = {"data": config.data.to_dict(), "classes": classes}
  doors = experiment_lib.Doors(
    mesh=lambda config: mesh_lib.make_mesh(devices, model=config.mesh.model),
    data=lambda config: _data(**images_of, notes=notes),
    teaching=lambda config: joined.teaching(
      config.to_dict(),
      lambda wanted: _teaching(wanted, config.dtype, images_of, notes),
    ),
    watch=lambda *_, **__: _blind(config.eval.batch_size, topology),
    initial=lambda student, init_from: {},
  )
  found = experiment_lib.experiment(config, where, doors)
  _check_hosts(config.batch_size, found.inputs.views.num_crops, topology)
  return Plan(topology, found, tuple(notes))


def _check_hosts(batch_size: int, crops: int, topology: Topology) -> None:
  """Whether the hosts can share the images of a batch.

  Raises:
    ValueError: they cannot.
  """
  unit = crops * topology.hosts
  if batch_size % unit:
    raise ValueError(
      f"batch_size is {batch_size}: {batch_size // crops} images do not split "
      f"over the {topology.hosts} hosts of {topology.name}. The nearest is "
      f"--config.batch_size={max(round(batch_size / unit), 1) * unit}."
    )


def _data(
  data: Mapping[str, Any], classes: int, notes: list[str]
) -> DataSource:
  """The images if they are here, else what is known of them."""
  resolve.symbol("data.sources", data.get("name", ""), "Source")
  try:
    return images.source(data)
  except (ValueError, OSError) as error:
    found = stand_in.of(data, classes)
    size = f"{len(found):,} images" if len(found) else "images without a count"
    reason = str(error).split(". ")[0]
    notes.append(
      f"data: {size} in {found.num_classes} classes; not opened: {reason}"
    )
    return found


def _blind(batch_size: int, topology: Topology) -> tuple[Evaluate, Pictures]:
  """Nothing is evaluated, which needs images; only whether it could be.

  Raises:
    ValueError: the chips cannot share a batch of the evaluation.
  """
  if batch_size < 1 or batch_size % topology.chips:
    near = max(round(batch_size / topology.chips), 1) * topology.chips
    raise ValueError(
      f"eval.batch_size is {batch_size}; it must be a positive multiple of "
      f"{topology.chips} devices. The nearest is --config.eval.batch_size="
      f"{near}."
    )
  nothing = stand_in.StandIn("", 0, 0)
  return lambda state, frozen: {}, Pictures(0, nothing, nothing)


def _teaching(
  wanted: Mapping[str, Any],
  dtype: str,
  images_of: Mapping[str, Any],
  notes: list[str],
) -> Teaching:
  """The teacher as shapes.

  Args:
    wanted: `config.teacher`.
    dtype: `config.dtype`.
    images_of: what `_data` gets.
    notes: what is assumed goes here.

  Raises:
    ValueError: it runs outside of JAX, or is a bank of which nothing is known.
  """
  if wanted["source"] == "none":
    return Teaching(none.Source(), {}, "none")
  if wanted["source"] == "bank":
    return _bank(wanted, images_of, notes)
  if wanted["source"] not in _NETWORKS:
    raise ValueError(
      f"the teacher source {wanted['source']!r} cannot be compiled for a "
      f"topology; set --config.teacher.source to one of "
      f"{[*_NETWORKS, 'bank', 'none']}"
    )
  notes.append(f"teacher: {wanted['name']} as created, weights not read")
  return _network(wanted, dtype)


def _network(wanted: Mapping[str, Any], dtype: str) -> Teaching:
  fields = networks.model_fields(wanted["overrides"])
  name = wanted["name"].partition(".")[0]
  source = online.Source(
    kd_jax.create_model(name, **{"dtype": dtype, **fields})
  )
  kept = functools.partial(networks.kept_as, wanted["param_dtype"], source)
  variables = jax.eval_shape(kept, variable_shapes(source.model))
  return Teaching(source, variables, "abstract", wanted["fsdp"])


def _bank(
  wanted: Mapping[str, Any], images_of: Mapping[str, Any], notes: list[str]
) -> Teaching:
  """A bank that is there, or that the config `teacher.weights` would write."""
  place = str(wanted["weights"])
  if not place.partition(":")[0].endswith(".py"):
    if place and not bank_lib.exists(place):
      raise ValueError(
        f"there is no bank at {place!r}. Write it, or name the config that "
        "does: --config.teacher.weights=configs/bank_fkd.py"
      )
    return Teaching(*bank_teacher.load("", place, {}), "bank")
  written = config_lib.load(place).to_dict()
  if "bank" not in written:
    raise ValueError(f"teacher.weights={place} is no config that writes a bank")
  if written["data"] != images_of["data"]:
    raise ValueError(
      f"{place} writes a bank of {written['data']}, and this config reads "
      f"{images_of['data']}"
    )
  notes.append(f"teacher: the bank that {place} would write")
  return _described(written, place, _data(**images_of, notes=[]))


def _described(
  config: Mapping[str, Any], place: str, data: DataSource
) -> Teaching:
  """The bank that a config of the task 'write_bank' would write."""
  teaching = _network(config["teacher"], config["dtype"])
  source = teaching.source
  views = images.preprocess(config["preprocess"], source.evaluation_view)
  codec = resolve.build("codecs", "Codec", config["bank"]["codec"])
  batch = phases.image_batch(2, views.image_size, source)
  frozen = {"teacher": teaching.variables, "artifact": {}}
  specs = jax.eval_shape(
    lambda f, b: dict(codec.collect(source(f, b))), frozen, batch
  )
  widths = {tap: spec.shape[1:] for tap, spec in specs.items()}
  header = bank_lib.Header(
    records=max(len(data), 1),
    crops=views.num_crops,
    shard=config["bank"]["shard"],
    arrays={"geometry": ((7,), "int16"), **codec.arrays(widths)},
    about={
      "images": data.fingerprint,
      "views": compatibility.settings(views),
      "seen": compatibility.seen(views),
      "seed": config["seed"],
      "per_image": codec.per_image,
    },
  )
  bank = Described(place, described=header)
  found = bank_teacher.Source(bank, codec, tuple(sorted(widths.items())))
  return Teaching(found, _constants(codec, specs), "abstract")


def _constants(codec: CodecLike, specs: Specs) -> dict[str, np.ndarray]:
  """Not what decodes, but of its shapes."""
  sample = {k: np.ones(x.shape, np.float32) for k, x in specs.items()}
  wanted = codec.bases({tap: spec.shape[1:] for tap, spec in specs.items()})
  if wanted:
    each = {
      tap: basis_lib.placeholder(dim=specs[tap].shape[-1], width=kept)
      for tap, kept in wanted.items()
    }
    return codec.constants(each, sample)
  if not codec.needs_basis:
    return codec.constants({}, sample)
  size = specs["feature"].shape[-1]
  artifact = basis_lib.placeholder(dim=size, width=codec.width)
  return codec.constants(artifact, sample)
