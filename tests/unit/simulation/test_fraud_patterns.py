"""Each pattern alone, by the mark it leaves; and the frauds that leave none."""

from collections import Counter, defaultdict

import numpy as np
import pytest

from fraudsdk.simulation import PATTERNS, SimulationSpec, simulate
from fraudsdk.simulation.patterns import plan
from fraudsdk.simulation.places import distance_km

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US


def only(pattern):
    return simulate(
        SimulationSpec(transactions=20_000, users=600, days=60, fraud_rate=0.03, seed=5, fraud_mix={pattern: 1.0})
    )


def fraud_of(table):
    rows = table["is_fraud"] == 1
    return {name: values[rows] for name, values in table.items()}


def time_us(table):
    return table["event_time"].astype(np.int64)


@pytest.mark.parametrize("pattern", PATTERNS[1:])
def test_a_pattern_asked_for_alone_fills_its_quota_alone(pattern):
    fraud = fraud_of(only(pattern))

    assert {pattern} == set(fraud["fraud_pattern"])
    assert 600 == pytest.approx(len(fraud["user_id"]), rel=0.12)


@pytest.mark.parametrize(
    ("quota", "smallest", "largest"), [(0, 3, 9), (1, 3, 9), (2, 3, 9), (50, 3, 9), (1_000, 16, 56)]
)
def test_a_quota_divides_into_whole_attacks_and_is_missed_by_less_than_the_smallest(quota, smallest, largest):
    attacks = plan(np.random.default_rng(1), quota, smallest, largest)

    assert abs(attacks.n_rows - quota) < smallest
    assert all(smallest <= size <= largest for size in attacks.size)
    assert attacks.n_rows == attacks.size.sum()


def test_a_takeover_mostly_uses_a_device_and_address_that_the_victim_never_used_and_sometimes_does_not():
    table = only("account_takeover")
    own = {(u, d) for u, d, f in zip(table["user_id"], table["device_id"], table["is_fraud"], strict=True) if not f}
    acted = [
        (user, device)
        for user, device, channel, side in zip(
            *(fraud_of(table)[name] for name in ("user_id", "device_id", "channel", "direction")), strict=True
        )
        if side == "debit" and channel in {"ecommerce", "transfer"}
    ]
    strange = np.mean([pair not in own for pair in acted])

    assert 0.7 < strange < 0.95


def test_a_takeover_spends_more_than_the_victim_does_but_not_always():
    table = only("account_takeover")
    typical = defaultdict(list)
    for user, amount, fraud in zip(table["user_id"], table["amount_minor"], table["is_fraud"], strict=True):
        if not fraud:
            typical[user].append(amount)
    fraud = fraud_of(table)
    above = np.mean(
        [
            amount > np.median(typical[user])
            for user, amount in zip(fraud["user_id"], fraud["amount_minor"], strict=True)
        ]
    )

    assert 0.7 < above < 0.99


def test_card_testing_is_many_cards_from_one_address_in_an_hour_small_and_mostly_declined():
    """
    Six attempts in ten share an address and an hour with at least five other cards; the others change addresses.
    """
    table = only("card_testing")
    fraud = fraud_of(table)
    small = fraud["amount_minor"] <= 1_500
    by_address = defaultdict(list)
    for ip, when, card in zip(fraud["ip"][small], time_us(fraud)[small], fraud["card_id"][small], strict=True):
        by_address[ip].append((when, card))
    in_a_burst = [
        len({card for when, card in attempts if abs(when - own_us) < HOUR_US / 2}) >= 6
        for attempts in by_address.values()
        for own_us, _ in attempts
    ]

    assert 0.8 < small.mean() < 0.98
    assert 0.6 < np.mean(in_a_burst) < 0.95
    assert 0.4 < fraud["declined"][small].mean() < 0.75
    assert len(set(fraud["merchant_id"][small])) < small.sum() / 8


def test_a_card_that_passed_the_test_is_used_for_more_within_days():
    """
    Nearly always: a few of those cards have no money behind them, and their test is refused for that.
    """
    fraud = fraud_of(only("card_testing"))
    large = np.flatnonzero(fraud["amount_minor"] > 5_000)
    followed = []
    for row in large:
        tested = (fraud["card_id"] == fraud["card_id"][row]) & ~fraud["declined"]
        waited_us = time_us(fraud)[row] - time_us(fraud)[tested]
        followed.append(np.any((waited_us > 0) & (waited_us < 3 * DAY_US)))

    assert large.size > 10
    assert np.mean(followed) > 0.85


def test_structuring_stays_within_a_tenth_under_a_limit_and_is_repeated_over_days():
    fraud = fraud_of(only("structuring"))
    below = np.array([[amount / limit for limit in (1_000_000, 300_000)] for amount in fraud["amount_minor"]])
    parts = Counter(fraud["user_id"])

    assert np.all(((below >= 0.9) & (below < 1.0)).any(axis=1))
    assert np.median(list(parts.values())) >= 4
    for user in parts:
        own = time_us(fraud)[fraud["user_id"] == user]
        assert own.max() - own.min() > 1 * HOUR_US


def test_layering_passes_the_money_on_within_hours_and_keeps_little():
    fraud = fraud_of(only("layering"))
    arrived = fraud["direction"] == "credit"
    passed_on = []
    for row in np.flatnonzero(arrived):
        later = (fraud["user_id"] == fraud["user_id"][row]) & ~arrived & (time_us(fraud) > time_us(fraud)[row])
        wait_us = time_us(fraud)[later] - time_us(fraud)[row]
        share = fraud["amount_minor"][later] / fraud["amount_minor"][row]
        on_time = (wait_us < 11 * HOUR_US) & (share > 0.89) & (share <= 1.0)
        passed_on.append(on_time.any())

    # All but the last link of each chain pass it on.
    assert np.mean(passed_on) > 0.65


def test_a_mule_collects_from_many_and_pays_out_nearly_all_of_it():
    fraud = fraud_of(only("mule"))
    credit = fraud["direction"] == "credit"
    mules = set(fraud["user_id"][credit])
    collected = sum(fraud["amount_minor"][credit])
    of_mule = np.array([user in mules for user in fraud["user_id"]])
    paid_out = sum(fraud["amount_minor"][of_mule & ~credit & ~fraud["declined"]])
    payers = [len(set(fraud["counterparty_id"][credit & (fraud["user_id"] == user)])) for user in mules]

    assert np.median(payers) >= 4
    assert 0.7 < paid_out / collected < 1.05


@pytest.mark.parametrize("pattern", ["account_takeover", "layering", "mule"])
def test_both_legs_of_a_fraudulent_transfer_are_there_and_both_are_labelled(pattern):
    table = only(pattern)
    sent = (
        (table["channel"] == "transfer")
        & (table["direction"] == "debit")
        & ~table["declined"]
        & np.array([(name or "").startswith("u-") for name in table["counterparty_id"]])
    )
    received = {
        (table["counterparty_id"][i], table["user_id"][i], time_us(table)[i], table["amount_minor"][i]): table[
            "is_fraud"
        ][i]
        for i in np.flatnonzero((table["channel"] == "transfer") & (table["direction"] == "credit"))
    }

    assert table["is_fraud"][sent].any()
    for i in np.flatnonzero(sent):
        leg = table["user_id"][i], table["counterparty_id"][i], time_us(table)[i] + 1_000_000, table["amount_minor"][i]
        assert received[leg] == table["is_fraud"][i]


def test_cards_stolen_at_a_merchant_have_been_there_and_share_it():
    table = only("merchant_compromise")
    visited = defaultdict(list)
    for merchant, card, when, fraud in zip(
        table["merchant_id"], table["card_id"], time_us(table), table["is_fraud"], strict=True
    ):
        if card and merchant and not fraud:
            visited[card].append((merchant, when))
    misused = defaultdict(lambda: 2**62)
    fraud = fraud_of(table)
    for card, when in zip(fraud["card_id"], time_us(fraud), strict=True):
        misused[card] = min(misused[card], when)
    common = Counter()
    for card, first_us in misused.items():
        common.update({merchant for merchant, when in visited[card] if when < first_us})

    assert len(misused) > 100
    # The twenty merchants most often visited beforehand explain most of the stolen cards.
    suspects = {merchant for merchant, _ in common.most_common(40)}
    assert np.mean([any(m in suspects for m, when in visited[c] if when < t) for c, t in misused.items()]) > 0.8


def test_impossible_travel_implies_more_than_a_thousand_km_an_hour_with_the_card_present():
    table = only("impossible_travel")
    placed = ~np.isnan(table["latitude"]) & (table["channel"] == "pos") & (table["type"] == "authorisation")
    speeds = []
    for row in np.flatnonzero((table["is_fraud"] == 1) & placed):
        own = placed & (table["is_fraud"] == 0) & (table["card_id"] == table["card_id"][row])
        waited_us = time_us(table)[row] - time_us(table)[own]
        recent = np.flatnonzero(own)[(waited_us > 0) & (waited_us <= HOUR_US)]
        km = distance_km(
            table["latitude"][recent], table["longitude"][recent], table["latitude"][row], table["longitude"][row]
        )
        hours = (time_us(table)[row] - time_us(table)[recent]) / HOUR_US
        speeds.append(np.max(km / hours))

    assert len(speeds) > 300
    assert min(speeds) > 1_000.0


def test_friendly_fraud_is_a_genuine_row_with_another_label():
    """
    With and without it, the same purchases are made: only labels, and what hangs on them, differ.
    """
    table = only("friendly_fraud")
    spec = {"transactions": 20_000, "users": 600, "days": 60, "seed": 5}
    genuine = simulate(SimulationSpec(**spec, fraud_rate=0.0))

    fields = ("event_time", "user_id", "card_id", "merchant_id", "amount_minor", "device_id", "ip")
    life = set(zip(*(genuine[name] for name in fields), strict=True))
    disputed = set(zip(*(fraud_of(table)[name] for name in fields), strict=True))
    offenders = Counter(fraud_of(table)["user_id"])

    assert disputed <= life
    assert max(offenders.values()) >= 3
