"""``python -m insitu_compose``: the same as the command ``insitu-compose``."""

from __future__ import annotations

from insitu_compose.main import main

main()
