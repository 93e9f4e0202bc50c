"""The ``insitu`` command: one file a subcommand."""
