"""
Money: an integer of minor units plus an ISO 4217 currency.

An amount arrives as a decimal string, an integer or `Decimal` of major units, or a float, which is read through its
shortest decimal form: the float ``0.1`` is the text ``"0.1"``, not 0.1000000000000000055.  Nothing is ever rounded here.
"""

from __future__ import annotations

from decimal import Context, Decimal, InvalidOperation
from fractions import Fraction
from typing import Final

from fraudsdk.domain.masking import masked, shown
from fraudsdk.domain.refusal import RefusedValue
from fraudsdk.domain.scalars import integer_of, is_absent, is_numpy_float

# Sums of 9,000 of the largest amounts still fit an int64, and a float64 holds each to the last minor unit.
MAX_AMOUNT_MINOR: Final = 10**15
_MAX_AMOUNT_CHARACTERS: Final = 40
_EXACT = Context(prec=64)
_POWERS_OF_TEN: Final = (1, 10, 100, 1_000, 10_000)

_TWO_DECIMALS = (
    "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF "
    "CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL "
    "HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU "
    "MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR "
    "SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED "
    "VES WST XAD XCD XCG YER ZAR ZMW ZWG "
    # Withdrawn since 2014: a replay of older transactions still meets them.
    "ANG BGN CUC HRK LTL MRO SLL STD VEF ZWL"
)
_NO_DECIMALS = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF BYR"
_THREE_DECIMALS = "BHD IQD JOD KWD LYD OMR TND"
_FOUR_DECIMALS = "CLF UYW"

# ISO 4217 list one.  Metals, test codes and accounting units (XAU, XTS, XDR, ...) have no minor unit: nobody pays in them.
CURRENCY_EXPONENTS: Final[dict[str, int]] = {
    code: exponent
    for codes, exponent in ((_NO_DECIMALS, 0), (_TWO_DECIMALS, 2), (_THREE_DECIMALS, 3), (_FOUR_DECIMALS, 4))
    for code in codes.split()
}


def parse_currency(value: object) -> str | None:
    """
    An ISO 4217 alphabetic code in capitals; None for empty text.

    Raises
    ------
    RefusedValue
        Not text, or not a currency with a minor unit.
    """
    if type(value) is str and value in CURRENCY_EXPONENTS:
        return value
    if not isinstance(value, str):
        if is_absent(value):
            return None
        raise RefusedValue(f"must be text, was {type(value).__name__}", 'send an ISO 4217 code such as "EUR"')
    code = value.strip().upper()
    if not code:
        return None
    if code not in CURRENCY_EXPONENTS:
        raise RefusedValue(
            f"must be an ISO 4217 currency, was {shown(value)}", 'send its three-letter code, such as "EUR"'
        )
    return str(code)


def parse_amount(value: object, currency: str) -> int:
    """
    Minor units of an amount given in major units.

    Parameters
    ----------
    value : str, int, Decimal or float
        Major units.
    currency : str
        A key of `CURRENCY_EXPONENTS`.

    Returns
    -------
    int
        0 to `MAX_AMOUNT_MINOR`.

    Raises
    ------
    RefusedValue
        Not a number, negative (``-0`` too), too large, or finer than the currency's minor unit.

    Examples
    --------
    >>> parse_amount("12.50", "GBP"), parse_amount(12.5, "KWD"), parse_amount(1200, "JPY")
    (1250, 12500, 1200)
    """
    text = value if type(value) is str else _decimal_text(value)
    exponent = CURRENCY_EXPONENTS[currency]
    whole, point, fraction = text.partition(".")
    # The everyday spelling, without the price of a Decimal.
    plain = len(text) <= 15 and text.isascii() and whole.isdigit() and (fraction.isdigit() or not point)
    if plain and len(fraction) <= exponent:
        minor = int(whole + fraction) * _POWERS_OF_TEN[exponent - len(fraction)]
        return minor if minor <= MAX_AMOUNT_MINOR else _refuse_large(text)
    return _amount_of_any_spelling(text, exponent, currency)


def parse_amount_minor(value: object) -> int:
    """
    An amount that already is an integer of minor units.

    Raises
    ------
    RefusedValue
        Not an integer, negative, or too large.
    """
    if type(value) is not int:
        value = _integer_of(value)
    if value < 0:
        _refuse_negative(str(value) if value > -(10**40) else "-…")
    return value if value <= MAX_AMOUNT_MINOR else _refuse_large(value)


def parse_rate(value: object) -> Fraction:
    """
    An exchange rate, exactly.

    Raises
    ------
    RefusedValue
        Not a positive decimal.  A float is refused: its last digits are not what was meant.
    """
    if isinstance(value, (str, Decimal)) or type(value) is int:
        rate = _to_decimal(str(value)) if len(str(value)) <= _MAX_AMOUNT_CHARACTERS else None
        if rate is not None and rate.is_finite() and 0 < rate and -20 <= rate.adjusted() <= 20:
            return Fraction(rate)
    raise RefusedValue(
        f"must be a positive decimal, was {shown(value)} ({type(value).__name__})", 'write it as text, such as "1.0832"'
    )


def convert_minor(amount_minor: int, numerator: int, denominator: int) -> int:
    """``amount_minor * numerator / denominator``, rounded half to even, in integers."""
    quotient, remainder = divmod(amount_minor * numerator, denominator)
    twice = 2 * remainder
    if twice > denominator or (twice == denominator and quotient & 1):
        return quotient + 1
    return quotient


def _decimal_text(value: object) -> str:
    if isinstance(value, float):
        return float.__repr__(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Decimal) or is_numpy_float(value):
        return str(value)  # a float32 has a shorter decimal form of its own
    return str(_integer_of(value, "a decimal string, an integer or a Decimal"))


def _integer_of(value: object, wanted: str = "an integer") -> int:
    number = integer_of(value)
    if number is not None:
        return number if abs(number) < 10**40 else _refuse_large(number)
    raise RefusedValue(f"must be {wanted}, was {_described(value)}", 'send a decimal string such as "12.50"')


def _described(value: object) -> str:
    return f"{shown(value)} ({type(value).__name__})" if isinstance(value, (bool, float)) else type(value).__name__


def _amount_of_any_spelling(text: str, exponent: int, currency: str) -> int:
    text = text.strip()
    if not text:
        raise RefusedValue("is empty", 'send a decimal string such as "12.50"')
    number = _to_decimal(text) if len(text) <= _MAX_AMOUNT_CHARACTERS else None
    if number is None or not number.is_finite():
        raise RefusedValue(
            f"must be a finite decimal number, was {shown(text)}",
            'send digits with a decimal point, such as "12.50", without currency signs or thousands separators',
        )
    if number.is_signed():
        _refuse_negative(text)
    if not number:
        return 0
    if number.adjusted() > 18:
        _refuse_large(text)
    too_fine = number.adjusted() < -exponent  # scaling would make zero of 1e-999999999
    scaled = Decimal(0) if too_fine else number.scaleb(exponent, _EXACT)
    if too_fine or scaled != scaled.to_integral_value(context=_EXACT):
        raise RefusedValue(
            f"must have at most {exponent} decimals for {currency}, was {shown(text)}",
            "round it to the currency's minor unit before sending, or send amount_minor",
        )
    minor = int(scaled)
    return minor if minor <= MAX_AMOUNT_MINOR else _refuse_large(text)


def _to_decimal(text: str) -> Decimal | None:
    if not text.isascii() or "_" in text:
        return None  # Decimal would read "1_000" and Arabic digits; a payment message has neither
    try:
        return Decimal(text)
    except InvalidOperation:
        return None


def _refuse_negative(text: str) -> None:
    raise RefusedValue(
        f"must be >= 0, was {shown(text)}",
        'send the absolute value with type="refund", or with direction="credit" for money received',
    )


def _refuse_large(value: object) -> int:
    raise RefusedValue(
        f"must be at most {MAX_AMOUNT_MINOR} minor units, was {masked(value)}", "check the unit of the amount"
    )
