"""Fields of every suite: a list of transfers for a list of students."""

from ml_collections import ConfigDict


def suite(title: str) -> ConfigDict:
  """An unlocked config, whose one student is a network from scratch."""
  config = ConfigDict()
  config.task = "suite"
  config.title = title
  config.baseline = "scratch"
  config.workdirs = ()  # finished runs, each a row
  config.rows = ("scratch",)
  config.columns = ()
  config.students = ConfigDict({"scratch": {"title": "from scratch"}})
  config.transfers = ConfigDict({})
  config.titles = ConfigDict({})  # of the columns
  config.order = ()  # runs that come first
  config.runs = ConfigDict({})
  # What such a run must reach: accuracy, or the figure of its transfer.
  config.least = ConfigDict({})
  config.at_once = 1  # runs side by side; 2 suits small networks on a CPU
  return config
