"""Genuine rows: people who have a home, habits, a salary and now and then a journey."""

from collections import Counter, defaultdict

import numpy as np
import pytest

from fraudsdk.simulation import SimulationSpec, simulate
from fraudsdk.simulation.places import distance_km

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US


@pytest.fixture(scope="module")
def life():
    """
    A table without fraud: about one row per user and day, for four months.
    """
    return simulate(SimulationSpec(transactions=60_000, users=500, days=120, fraud_rate=0.0, seed=11))


def time_us(table):
    return table["event_time"].astype(np.int64)


def test_a_salary_comes_every_month_from_one_employer_and_hardly_changes(life):
    employer_like = (life["direction"] == "credit") & (life["channel"] == "transfer")
    received = defaultdict(list)
    for user, payer, when, amount in zip(
        life["user_id"][employer_like],
        life["counterparty_id"][employer_like],
        time_us(life)[employer_like],
        life["amount_minor"][employer_like],
        strict=True,
    ):
        if payer.startswith("a-"):
            received[user, payer].append((when, amount))
    assert len(received) > 200

    for payments in received.values():
        days = np.diff([when for when, _ in payments]) / DAY_US
        amounts = [amount for _, amount in payments]
        assert len(payments) >= 3
        assert np.all((days >= 25) & (days <= 36))
        assert max(amounts) <= 1.05 * min(amounts)


def test_both_legs_of_a_transfer_between_users_are_there_and_agree(life):
    between = (life["channel"] == "transfer") & np.array(
        [(name or "").startswith("u-") for name in life["counterparty_id"]]
    )
    debits, credits = (between & (life["direction"] == side) for side in ("debit", "credit"))

    def legs(mask, payer, payee, delay_us):
        return Counter(
            zip(
                life[payer][mask],
                life[payee][mask],
                life["amount_minor"][mask],
                time_us(life)[mask] + delay_us,
                strict=True,
            )
        )

    assert debits.sum() > 1_000
    assert legs(debits, "user_id", "counterparty_id", 1_000_000) == legs(credits, "counterparty_id", "user_id", 0)


def test_subscriptions_bill_the_same_amount_in_every_month(life):
    billed = defaultdict(list)
    stored = (life["entry_mode"] == "stored") & (life["device_id"] == None) & (life["type"] == "authorisation")  # noqa: E711
    for user, merchant, amount, mcc in zip(
        *(life[name][stored] for name in ("user_id", "merchant_id", "amount_minor", "mcc")), strict=True
    ):
        if mcc in {"4899", "4814", "4900", "6300", "7997"}:
            billed[user, merchant, amount].append(1)

    assert 3 <= np.median([len(times) for times in billed.values()]) <= 4


def test_a_user_keeps_to_a_few_merchants_hours_and_devices(life):
    bought = (life["channel"] == "pos") & (life["type"] == "authorisation")
    merchants = defaultdict(Counter)
    hours = defaultdict(list)
    for user, merchant, when in zip(
        life["user_id"][bought], life["merchant_id"][bought], time_us(life)[bought], strict=True
    ):
        merchants[user][merchant] += 1
        hours[user].append(when % DAY_US / DAY_US * 2 * np.pi)
    often = [seen for seen in merchants.values() if sum(seen.values()) >= 40]
    top_three = [sum(count for _, count in seen.most_common(3)) / sum(seen.values()) for seen in often]
    # Length of the mean vector on the clock face: 0 for any hour alike, 1 for always the same.
    rhythm = [abs(np.mean(np.exp(1j * np.array(angles)))) for angles in hours.values() if len(angles) >= 40]
    devices = Counter(user for user, _ in set(zip(life["user_id"], life["device_id"], strict=True)))

    assert np.median(top_three) > 0.3
    assert np.median(rhythm) > 0.3
    assert max(devices.values()) <= 5  # three, the one that replaced the first, and none


def test_nobody_outruns_an_aircraft_between_two_counters(life):
    present = (life["card_present"] == 1.0) & ~np.isnan(life["latitude"]) & (life["type"] == "authorisation")
    at = np.flatnonzero(present)
    at = at[np.argsort(life["user_id"][at].astype(str), kind="stable")]
    before, after = at[:-1], at[1:]
    same = life["user_id"][before] == life["user_id"][after]
    km = distance_km(*(life[name][rows] for rows in (before, after) for name in ("latitude", "longitude")))
    hours = np.maximum(time_us(life)[after] - time_us(life)[before], 1) / HOUR_US
    far = same & (km > 100.0)

    assert far.sum() > 100
    assert np.max(km[far] / hours[far]) < 1_000.0


def test_a_traveller_stays_abroad_for_days(life):
    """
    Counters abroad come in runs: most rows abroad are followed by another row in the same country.
    """
    at = np.flatnonzero((life["channel"] == "pos") & (life["type"] == "authorisation"))
    at = at[np.argsort(life["user_id"][at].astype(str), kind="stable")]
    abroad = life["merchant_country"][at] != life["card_country"][at]
    stays = abroad[:-1] & (life["merchant_country"][at][:-1] == life["merchant_country"][at][1:])

    assert 0.03 < abroad.mean() < 0.2
    assert stays.sum() / abroad.sum() > 0.6


def test_a_user_who_is_refused_for_lack_of_funds_is_in_debt(life):
    """
    At the counter half of the refusals find the account overdrawn; hardly any approved payment does so deeply.
    """
    known = (life["channel"] == "pos") & (life["type"] == "authorisation") & ~np.isnan(life["balance"])
    left = life["balance"] - life["amount_minor"] / 100.0
    refused, approved = known & life["declined"], known & ~life["declined"]

    assert np.mean(left[refused] < 0) > 3 * np.mean(left[approved] < 0)


def test_normal_life_holds_what_fraud_is_mistaken_for(life):
    online = (life["channel"] == "ecommerce") & (life["ip_country"] != None)  # noqa: E711
    near_limit = (life["channel"] != "pos") & (
        ((life["amount_minor"] > 900_000) & (life["amount_minor"] < 1_000_000))
        | ((life["amount_minor"] > 270_000) & (life["amount_minor"] < 300_000))
    )
    by_user = np.argsort(life["user_id"].astype(str), kind="stable")
    same_user = life["user_id"][by_user][3:] == life["user_id"][by_user][:-3]
    four_within_the_hour = same_user & (time_us(life)[by_user][3:] - time_us(life)[by_user][:-3] < HOUR_US)

    assert np.mean(life["ip_country"][online] != life["card_country"][online]) > 0.02
    assert near_limit.sum() > 20
    assert four_within_the_hour.sum() > 100
