"""What `config.data.name` can say: one file per kind of data set."""
