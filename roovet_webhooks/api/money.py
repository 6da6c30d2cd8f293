"""Money: integer cents everywhere, and the decimal ``amount`` of the API as an exact `Decimal`, never a float."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

MAX_CENTS = 99_999_999_999
"""The largest amount of one request, in cents (assumed)."""


def amount_of_cents(cents: int) -> Decimal:
    """Return cents as a decimal amount with two places.

    Raises:
        ValueError: ``cents`` is no whole number from 1 to `MAX_CENTS`.

    Example:
        >>> amount_of_cents(1234)
        Decimal('12.34')
    """
    if not isinstance(cents, int) or isinstance(cents, bool) or not 1 <= cents <= MAX_CENTS:  # pyright: ignore[reportUnnecessaryIsInstance] - an untyped caller may pass a float
        message = f"amount_cents must be an int from 1 to {MAX_CENTS}, not {cents!r}"
        raise ValueError(message)
    whole, part = divmod(cents, 100)
    return Decimal(f"{whole}.{part:02}")


def cents_of_amount(amount: Decimal) -> int:
    """Return a decimal amount as cents, exactly.

    Raises:
        ValueError: The amount has a part of a cent, or is not from 0.01 to ``MAX_CENTS / 100``.

    Example:
        >>> cents_of_amount(Decimal("12.34"))
        1234
    """
    # Bounds first: an exponent such as 1e1000000000 must not become an int.
    if not Decimal("0.01") <= amount <= amount_of_cents(MAX_CENTS):
        message = f"the amount must be from 0.01 to {amount_of_cents(MAX_CENTS)}"
        raise ValueError(message)
    cents = Fraction(amount) * 100  # exact: a Decimal's own arithmetic rounds to 28 digits
    if cents.denominator != 1:
        message = "the amount must have at most 2 decimal places"
        raise ValueError(message)
    return cents.numerator
