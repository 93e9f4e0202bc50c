"""The ``insitu-gateway`` command."""
