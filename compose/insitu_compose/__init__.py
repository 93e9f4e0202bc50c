"""A whole federation as real processes on one machine: for evaluation, tests and demonstrations.

Nothing here is trusted by anyone and nothing here is needed in a real federation: this package only calls the other
distributions' commands, in the order in which their parties would. It makes no keys, signs nothing and reads no data.
"""

from __future__ import annotations

__version__ = "0.1.0"
