"""How numbers and moments are written as text: what a cast of text takes, and gives NULL for otherwise.

The patterns mean the same in the engines' regular expressions and in Python's (RE2, PostgreSQL's own, re), and whatever
matches one is cast by each engine without error, to the same value. So they hold no back reference, no class by name
and no escape; they match in time linear in the text.
"""

from __future__ import annotations

INTEGER = "[+-]?[0-9]{1,15}"
"""At most 15 digits, within the limits of integers that are read."""
DECIMAL = "[+-]?([0-9]{1,15}([.][0-9]{0,15})?|[.][0-9]{1,15})([eE][+-]?[0-9]{1,2})?"
_LONG = "(0?[13578]|1[02])-(0?[1-9]|[12][0-9]|3[01])"
_SHORT = "(0?[469]|11)-(0?[1-9]|[12][0-9]|30)"
_FEBRUARY = "0?2-(0?[1-9]|1[0-9]|2[0-8])"
_YEAR = "([0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)"
_FOURTH = "(0[48]|[2468][048]|[13579][26])"
_DAY = f"({_YEAR}-({_LONG}|{_SHORT}|{_FEBRUARY})|([0-9]{{2}}{_FOURTH}|{_FOURTH}00)-0?2-29)"
"""ISO 8601, from the year 1 on, with or without zeros before a month and a day; the Gregorian calendar's days alone."""
MOMENT = f"{_DAY}([ T]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.][0-9]{{1,6}})?)?)?"
