"""
The shipped feature set: what a velocity engine at a card issuer computes, by family.

Drop or add lines with `FeatureSet.without` and `FeatureSet.with_features`, or write the set to a file and edit it.
``docs/features.md`` is generated from here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fraudsdk.features.spec import EventFilter, Feature, FeatureSet

# Limits that structuring stays under: reporting thresholds and common card and transfer limits, major units.
LIMITS = (500.0, 1_000.0, 3_000.0, 5_000.0, 10_000.0)
# "Just under" is within a tenth, as below_limit has it.
JUST_UNDER = tuple((0.9 * limit, limit - 0.01) for limit in LIMITS)

_VELOCITY_REASONS = {"user": "VEL01", "card": "VEL02", "device": "VEL03", "ip": "VEL04", "merchant": "VEL05"}


def reference_feature_set(currency: str = "GBP") -> FeatureSet:
    """
    The catalogue as a feature set.

    Parameters
    ----------
    currency : str
        Reference currency, ISO 4217; the limits are in its major units.
    """
    families = (_amount, _calendar, _velocity, _deviation, _recency, _geography, _risk, _device, _declines, _laundering)
    return FeatureSet(
        name="reference",
        currency=currency,
        limits=LIMITS,
        filters=(EventFilter("just_under_limit", "amount", between=JUST_UNDER),),
        features=tuple(feature for family in families for feature in family()) + tuple(_categories()),
    )


def _amount() -> Iterator[Feature]:
    said: dict[str, Any] = {"family": "amount", "reason": "AMT01"}
    yield Feature("amount", "value", field="amount", description="Amount, major units", **said)
    yield Feature("amount_log", "log", field="amount", description="log(1 + amount)", **said)
    yield Feature("amount_is_round", "round_amount", bound=50.0, description="Amount is a multiple of 50", **said)
    yield Feature("balance", "value", field="balance", description="Balance before the transaction", **said)
    yield Feature(
        "amount_to_balance", "ratio", of=("amount", "balance"), description="Amount over the balance before it", **said
    )


def _calendar() -> Iterator[Feature]:
    said: dict[str, Any] = {"family": "calendar", "reason": "CAL01"}
    yield Feature("hour_sin", "hour_sin", description="Time of day on the circle, sine", **said)
    yield Feature("hour_cos", "hour_cos", description="Time of day on the circle, cosine", **said)
    yield Feature("is_weekend", "is_weekend", description="Saturday or Sunday", **said)
    yield Feature("is_night", "is_night", description="00:00 to 06:59 UTC", **said)
    yield Feature("day_of_month", "day_of_month", description="Day of the month", **said)
    yield Feature(
        "user_hour_deviation",
        "hour_deviation",
        entity="user",
        description="Hours from the user's usual time of day",
        **said,
    )
    yield Feature(
        "user_hour_concentration",
        "hour_concentration",
        entity="user",
        description="How concentrated the user's hours are, 0 to 1",
        **said,
    )


def _velocity() -> Iterator[Feature]:
    counts = {
        "user": ("1m", "5m", "1h", "24h", "7d", "30d"),
        "card": ("1m", "5m", "1h", "24h", "7d"),
        "device": ("5m", "1h", "24h"),
        "ip": ("5m", "1h", "24h"),
        "merchant": ("5m", "1h", "24h", "7d"),
    }
    for entity, windows in counts.items():
        said: dict[str, Any] = {"family": "velocity", "reason": _VELOCITY_REASONS[entity], "entity": entity}
        for window in windows:
            yield Feature(
                f"{entity}_count_{window}",
                "count",
                window=window,
                current=True,
                description=f"Purchases of this {entity} in {window}, this one included",
                **said,
            )
        for window in ("1h", "24h", "7d") if entity in ("user", "card") else ("1h", "24h"):
            yield Feature(
                f"{entity}_amount_{window}",
                "sum",
                window=window,
                current=True,
                description=f"Amount spent by this {entity} in {window}, this one included",
                **said,
            )
    yield Feature(
        "card_max_amount_24h",
        "max",
        entity="card",
        window="24h",
        family="velocity",
        reason="VEL02",
        description="Largest purchase of this card in 24h before",
    )
    for entity, counted, window in (("user", "merchant", "24h"), ("card", "merchant", "1h"), ("user", "mcc", "7d")):
        yield Feature(
            f"{entity}_distinct_{counted}_{window}",
            "distinct",
            entity=entity,
            field=counted,
            window=window,
            current=True,
            family="velocity",
            reason=_VELOCITY_REASONS[entity],
            description=f"Different {counted}s of this {entity} in {window}",
        )
    yield Feature(
        "user_decayed_count_1h",
        "decayed_count",
        entity="user",
        half_life="1h",
        family="velocity",
        reason="VEL01",
        description="Purchases of this user, each worth half after an hour",
    )
    yield Feature(
        "user_acceleration",
        "ratio",
        of=("user_count_1h", "user_count_24h"),
        family="velocity",
        reason="VEL01",
        description="Share of the day's purchases that fell in the last hour",
    )


def _deviation() -> Iterator[Feature]:
    said: dict[str, Any] = {"family": "deviation", "reason": "DEV01"}
    for entity, windows in (
        ("user", ("7d", "30d")),
        ("card", ("30d",)),
        ("merchant", ("7d",)),
        ("user+merchant", ("30d",)),
    ):
        name = entity.replace("+", "_")
        for window in windows:
            own = entity.replace("+", " at this ")
            yield Feature(
                f"amount_to_{name}_mean_{window}",
                "ratio_to_mean",
                entity=entity,
                window=window,
                description=f"Amount over the mean of this {own} in {window} before",
                **said,
            )
    for entity, window in (("user", "30d"), ("merchant", "7d")):
        yield Feature(
            f"amount_zscore_{entity}_{window}",
            "zscore",
            entity=entity,
            window=window,
            description=f"Standard deviations above the mean of this {entity} in {window} before",
            **said,
        )
    yield Feature(
        "amount_to_user_max_30d",
        "ratio_to_max",
        entity="user",
        window="30d",
        description="Amount over the user's largest in 30d before",
        **said,
    )
    yield Feature(
        "amount_share_user_24h",
        "share",
        entity="user",
        window="24h",
        description="Share of this purchase in the user's day",
        **said,
    )
    yield Feature(
        "user_amount_std_30d",
        "std",
        entity="user",
        window="30d",
        description="Spread of the user's amounts in 30d",
        **said,
    )
    yield Feature(
        "user_amount_mean_30d",
        "mean",
        entity="user",
        window="30d",
        description="Mean of the user's amounts in 30d",
        **said,
    )
    yield Feature(
        "user_max_amount_7d",
        "max",
        entity="user",
        window="7d",
        description="The user's largest purchase in 7d before",
        **said,
    )
    yield Feature(
        "user_max_7d_to_mean_30d",
        "ratio",
        of=("user_max_amount_7d", "user_amount_mean_30d"),
        description="The user's largest purchase in 7d over the mean of 30d: a stolen card is used more than once",
        **said,
    )


def _recency() -> Iterator[Feature]:
    said: dict[str, Any] = {"family": "recency", "reason": "REC01"}
    for entity in ("user", "card", "device", "ip", "merchant"):
        yield Feature(
            f"{entity}_seconds_since_last",
            "seconds_since_last",
            entity=entity,
            description=f"Seconds since the last event of this {entity}",
            **said,
        )
    for entity in ("user", "card", "device"):
        yield Feature(
            f"{entity}_seconds_since_first",
            "seconds_since_first",
            entity=entity,
            description=f"Seconds since this {entity} was first seen",
            **said,
        )
    for pair, reason in (
        ("user+merchant", "REC01"),
        ("user+device", "REC02"),
        ("user+merchant_country", "REC03"),
        ("user+ip", "REC02"),
        ("user+counterparty", "REC01"),
    ):
        name = pair.replace("+", "_")
        yield Feature(
            f"{name}_is_new",
            "is_new",
            entity=pair,
            family="recency",
            reason=reason,
            description=f"First time for this {pair.replace('+', ' and ')}",
        )
    yield Feature(
        "user_merchant_visits",
        "count_ever",
        entity="user+merchant",
        description="Earlier events of this user at this merchant",
        **said,
    )
    yield Feature("account_age_days", "value", field="account_age_days", description="Age of the account, days", **said)


def _geography() -> Iterator[Feature]:
    said: dict[str, Any] = {"family": "geography", "reason": "GEO01"}
    yield Feature(
        "user_distance_from_last_km",
        "distance_from_last_km",
        entity="user",
        description="Distance from the user's last position",
        **said,
    )
    yield Feature(
        "user_speed_kmh", "speed_kmh", entity="user", description="Speed since the user's last position", **said
    )
    yield Feature(
        "user_impossible_travel",
        "impossible_travel",
        entity="user",
        bound=900.0,
        description="Faster than an airliner since the last position",
        **said,
    )
    yield Feature(
        "user_distance_from_centre_km",
        "distance_from_centre_km",
        entity="user",
        description="Distance from the user's usual centre",
        **said,
    )
    yield Feature("distance_from_home_km", "distance_km", description="Distance from the home position", **said)
    for one, other in (
        ("merchant_country", "card_country"),
        ("ip_country", "card_country"),
        ("ip_country", "merchant_country"),
    ):
        yield Feature(
            f"{one}_differs_{other}",
            "differs",
            field=f"{one}+{other}",
            family="geography",
            reason="GEO02",
            description=f"{one} is not {other}",
        )


def _risk() -> Iterator[Feature]:
    reasons = {"merchant": "RSK01", "mcc": "RSK02", "device": "RSK03", "ip": "RSK03"}
    for entity, reason in reasons.items():
        for window in ("1d", "7d", "30d"):
            yield Feature(
                f"{entity}_fraud_rate_{window}",
                "rate",
                entity=entity,
                filter=("fraud",),
                window=window,
                delay="7d",
                family="risk",
                reason=reason,
                description=f"Fraud rate of this {entity} in {window}, ending a week ago so that labels are known",
            )
    yield Feature(
        "merchant_frauds_30d",
        "count",
        entity="merchant",
        filter=("fraud",),
        window="30d",
        family="risk",
        reason="RSK01",
        description="Frauds at this merchant in 30d that are known by now",
    )
    merchant: dict[str, Any] = {"entity": "merchant", "family": "risk", "reason": "RSK01"}
    # Labels join a window when they are delivered, so these need no delay: they say which verdict is the newer one.
    for verdict in ("fraud", "genuine"):
        yield Feature(
            f"merchant_seconds_since_{verdict}_60d",
            "seconds_since_newest",
            filter=(verdict,),
            window="60d",
            description=f"Seconds since the newest purchase here that is known to be {verdict}",
            **merchant,
        )
    yield Feature(
        "merchant_verdict_lead",
        "difference",
        of=("merchant_seconds_since_genuine_60d", "merchant_seconds_since_fraud_60d"),
        family="risk",
        reason="RSK01",
        description="Seconds by which the newest known fraud here is newer than the newest known genuine purchase",
    )
    yield Feature(
        "merchant_fraud_amount_mean_30d",
        "mean",
        filter=("fraud",),
        window="30d",
        description="Mean amount of the known frauds here",
        **merchant,
    )
    yield Feature(
        "user_seconds_since_fraud_30d",
        "seconds_since_newest",
        entity="user",
        filter=("fraud",),
        window="30d",
        family="risk",
        reason="RSK03",
        description="Seconds since the user's last known fraud",
    )


def _device() -> Iterator[Feature]:
    said: dict[str, Any] = {"family": "device", "reason": "DVC01"}
    for entity, counted, window in (
        ("device", "user", "7d"),
        ("ip", "user", "24h"),
        ("device", "card", "24h"),
        ("ip", "card", "24h"),
        ("user", "device", "30d"),
        ("user", "ip", "7d"),
        ("merchant", "card", "1h"),
    ):
        yield Feature(
            f"{entity}_distinct_{counted}_{window}",
            "distinct",
            entity=entity,
            field=counted,
            window=window,
            current=True,
            description=f"Different {counted}s seen with this {entity} in {window}",
            **said,
        )
    yield Feature("device_known", "known", field="device", description="The device is known", **said)


def _declines() -> Iterator[Feature]:
    said: dict[str, Any] = {"family": "declines", "reason": "DCL01", "filter": ("declined",)}
    for entity, window in (("user", "1h"), ("user", "24h"), ("card", "1h"), ("ip", "1h"), ("merchant", "1h")):
        yield Feature(
            f"{entity}_declined_{window}",
            "count",
            entity=entity,
            window=window,
            description=f"Declined attempts of this {entity} in {window} before",
            **said,
        )
    yield Feature(
        "card_decline_rate_24h",
        "rate",
        entity="card",
        window="24h",
        description="Share of this card's attempts in 24h before that were declined",
        **said,
    )


def _laundering() -> Iterator[Feature]:
    under: dict[str, Any] = {"family": "laundering", "reason": "LND01"}
    flow: dict[str, Any] = {"family": "laundering", "reason": "LND02"}
    yield Feature(
        "just_under_limit", "below_limit", bound=0.1, description="Amount is within 10 % below a limit", **under
    )
    yield Feature(
        "user_just_under_limit_7d",
        "count",
        entity="user",
        filter=("just_under_limit",),
        window="7d",
        current=True,
        description="Amounts just under a limit in 7d, this one included",
        **under,
    )
    for window in ("24h", "7d"):
        yield Feature(
            f"user_credit_amount_{window}",
            "sum",
            entity="user",
            filter=("credit",),
            window=window,
            description=f"Money received by this user in {window} before",
            **flow,
        )
    yield Feature(
        "user_out_to_in_24h",
        "ratio",
        of=("user_amount_24h", "user_credit_amount_24h"),
        description="Money sent over money received in 24h",
        **flow,
    )
    yield Feature(
        "user_seconds_since_credit_7d",
        "seconds_since_newest",
        entity="user",
        filter=("credit",),
        window="7d",
        description="Seconds since money last came in",
        **flow,
    )
    yield Feature(
        "user_distinct_counterparty_7d",
        "distinct",
        entity="user",
        field="counterparty",
        window="7d",
        current=True,
        description="Different counterparties of this user in 7d",
        **flow,
    )
    yield Feature(
        "counterparty_distinct_user_7d",
        "distinct",
        entity="counterparty",
        field="user",
        window="7d",
        current=True,
        description="Different users who dealt with this counterparty in 7d",
        **flow,
    )
    yield Feature(
        "user_refund_count_30d",
        "count",
        entity="user",
        filter=("refund",),
        window="30d",
        description="Refunds to this user in 30d",
        **flow,
    )


def _categories() -> Iterator[Feature]:
    said: dict[str, Any] = {"family": "category", "reason": "CAT01"}
    for name in ("channel", "entry_mode", "mcc", "merchant_country", "three_ds"):
        yield Feature(f"{name}_code", "code", field=name, description=f"Vocabulary code of {name}, 0 = unknown", **said)
    yield Feature("card_present", "value", field="card_present", description="Card present: 1, not: 0", **said)
