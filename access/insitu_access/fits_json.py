"""The bounds that a request names for its releases, as JSON and back: part of what the researcher signs."""

from __future__ import annotations

from fractions import Fraction

from insitu_privacy.fits import ReleaseFit, StatisticFit, in_range

from insitu_access.payload import Fields, Malformed, as_items, as_text, read_number


def fit_as_json(fit: ReleaseFit) -> dict[str, object]:
    """The bounds of one release."""
    return {
        "max_rows_per_group": fit.max_rows_per_group,
        "max_groups": fit.max_groups,
        "statistics": [
            {
                "weight": one.weight,
                "linf": one.linf,
                "center": None if one.center is None else str(one.center),
                "ends": None if one.ends is None else [str(end) for end in one.ends],
            }
            for one in fit.statistics
        ],
    }


def read_fit(value: object, path: str) -> ReleaseFit:
    """The inverse. Raises Malformed."""
    with Fields(value, path) as fields:
        fit = ReleaseFit(
            max_rows_per_group=fields.integer("max_rows_per_group"),
            max_groups=fields.integer("max_groups"),
            statistics=fields.items("statistics", _read_statistic),
        )
    if not in_range(fit) or not (1 <= fit.max_rows_per_group < 2**53 and 1 <= fit.max_groups < 2**53):
        raise Malformed(f"{path} has a number out of range")
    return fit


def _read_statistic(value: object, path: str) -> StatisticFit:
    with Fields(value, path) as fields:
        return StatisticFit(
            weight=fields.integer("weight"),
            linf=fields.optional_integer("linf"),
            center=fields.optional_item("center", read_signed),
            ends=fields.optional_item("ends", _read_ends),
        )


def _read_ends(value: object, path: str) -> tuple[Fraction, Fraction]:
    ends = as_items(value, path, read_signed)
    if len(ends) != 2:
        raise Malformed(f"{path} must have two numbers")
    return ends[0], ends[1]


def read_signed(value: object, path: str) -> Fraction:
    """An exact number, which may be negative, as text."""
    text = as_text(value, path)
    number = read_number(text.removeprefix("-"))
    if number is None:
        raise Malformed(f'{path} must be an exact number as text, such as "-1/2"')
    return -number if text.startswith("-") else number
