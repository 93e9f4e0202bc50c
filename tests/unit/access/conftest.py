from __future__ import annotations

from hypothesis import settings

# two cores are shared by many tests: what is measured is the code, not the machine
settings.register_profile("access", deadline=None, max_examples=60)
settings.load_profile("access")
