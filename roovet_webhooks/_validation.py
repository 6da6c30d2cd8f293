"""Whether an option that has to be a number is one: texts out of the environment are not."""

from __future__ import annotations


def is_number(value: object) -> bool:
    """Say whether a value is a number, whole or not. A bool is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_count(value: object) -> bool:
    """Say whether a value is a whole number. A bool is none."""
    return isinstance(value, int) and not isinstance(value, bool)


def number_and_noun(count: int, one: str = "delivery", many: str = "deliveries") -> str:
    """Return a number with its noun.

    Example:
        >>> number_and_noun(1), number_and_noun(2, "handler", "handlers")
        ('1 delivery', '2 handlers')
    """
    return f"{count} {one if count == 1 else many}"
