"""Bounds that fit: from public profiles to the contribution bounds and shares of a query with the least total error.

``fitted`` takes a plan at default bounds and gives the bounds to ask for. It reads the plan, the dataset's contract and
profiles, all of them public, and nothing else: whoever has these finds the same. The guarantee never rests on it
(``insitu_privacy.fits``).
"""

from insitu_privacy.fitting.fit import Fitting, Outlook, fitted
from insitu_privacy.fitting.own import OwnRows
from insitu_privacy.fitting.worth import is_worth_a_look

__all__ = ["Fitting", "Outlook", "OwnRows", "fitted", "is_worth_a_look"]
