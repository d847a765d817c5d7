"""One file per job; run(config, workdir)."""
