"""From a config to an `Experiment`; below this door nobody sees a config."""
