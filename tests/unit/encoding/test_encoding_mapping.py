"""
A mapping says which column of a table is which field, and repairs what tables get wrong.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import numpy as np
import pytest

from fraudsdk.domain import fields
from fraudsdk.domain.fields import RecordLayout
from fraudsdk.encoding import ColumnMapping, Encoder, Vocabulary
from fraudsdk.encoding.mapping import shipped
from fraudsdk.errors import ConfigurationError

ENCODER = Encoder(
    RecordLayout(("user_id",), ("amount",)), key=b"sixteen byte key", vocabulary=Vocabulary(), currency="EUR"
)
BASE = {
    "transaction_id": np.array([1, 2]),
    "user_id": np.array(["u-1", "u-2"]),
    "amount": np.array([1.0, 2.0]),
    "event_time": np.array(["2024-01-01", "2024-01-02"], "datetime64[s]"),
}


def mapped(toml, **columns):
    return ColumnMapping.from_toml(toml).apply({name: np.array(column) for name, column in columns.items()})


def objects(*values):
    array = np.empty(len(values), object)
    array[:] = values
    return array


def test_a_table_with_canonical_names_needs_no_mapping():
    table = {**BASE, "zip": np.array([1, 2])}
    mapping = ColumnMapping()

    assert list(BASE) == list(mapping.apply(table))
    assert ("zip",) == mapping.unused(table)


def test_a_field_is_read_from_the_column_it_is_mapped_to():
    mapping = ColumnMapping.from_toml('user_id = "CUSTOMER"\n[custom]\npoints = "LOYALTY"')
    canonical = mapping.apply({"CUSTOMER": np.array(["u-1"]), "LOYALTY": np.array([5]), "OTHER": np.array([0])})

    assert (["u-1"], [5]) == (canonical["user_id"].tolist(), canonical["points"].tolist())
    assert ("OTHER",) == mapping.unused(("CUSTOMER", "OTHER", "LOYALTY"))
    assert ("points",) == mapping.custom


def test_custom_columns_that_the_feature_set_declares_are_taken_by_name():
    table = {**BASE, "points": np.array([1, 2])}

    assert "points" not in ColumnMapping().apply(table)
    assert "points" in ColumnMapping().apply(table, custom=("points",))
    assert () == ColumnMapping().unused(table, custom=("points",))


def test_pairs_of_a_command_line_are_laid_over_a_file():
    base = ColumnMapping.from_toml('user_id = "A"\namount = "B"')
    mapping = ColumnMapping.from_pairs(["user_id=C", "custom.points = D"], base)

    assert ("C", "B", "D") == tuple(mapping.sources[name].column for name in ("user_id", "amount", "points"))
    assert ("points",) == mapping.custom


def test_a_column_that_only_bears_the_name_of_a_field_can_be_left_out():
    assert "amount" not in ColumnMapping.from_toml("amount = false").apply(BASE)


@pytest.mark.parametrize(
    ("toml", "replaced"),
    [
        ('event_time = { column = "when", unit = "s" }', "event_time"),
        ('amount_minor = "cents"', "amount"),
        ('pan = "cc"', "card_id"),
    ],
)
def test_a_mapped_spelling_of_a_field_replaces_its_other_spellings(toml, replaced):
    table = {**BASE, "card_id": np.array([1, 2]), **dict.fromkeys(("when", "cents", "cc"), np.array([1, 2]))}

    assert replaced not in ColumnMapping.from_toml(toml).apply(table)


def test_float_dust_is_rounded_to_the_minor_unit_of_the_currency():
    dusty = np.array([213.60000000000002, 1.005, 7.0])

    for currency, expected in (("EUR", [213.6, 1.0, 7.0]), ("JPY", [214.0, 1.0, 7.0]), ("KWD", [213.6, 1.005, 7.0])):
        toml = f'amount = {{ column = "A", rounding = "nearest" }}\ncurrency = {{ value = "{currency}" }}'
        assert expected == mapped(toml, A=dusty)["amount"].tolist()


def test_rounding_takes_the_currency_of_each_row_or_of_the_caller():
    toml = 'amount = { column = "A", rounding = "nearest" }'
    table = {"A": np.array([1.26, 1.26]), "currency": objects("JPY", None)}

    assert [1.0, 1.26] == ColumnMapping.from_toml(toml).apply(table, currency="EUR")["amount"].tolist()
    with pytest.raises(ConfigurationError, match="needs a currency"):
        mapped(toml, A=[1.26])


def test_currency_signs_are_stripped_and_negative_amounts_become_refunds():
    toml = 'amount = { column = "A", strip = "$,", negative = "refund" }'
    canonical = mapped(toml, A=objects("$1,234.50", "$-99.00", None))

    assert ["1234.50", "99.00", None] == canonical["amount"].tolist()
    assert [None, "refund", None] == canonical["type"].tolist()


def test_negative_floats_become_refunds_and_keep_the_other_types():
    toml = 'amount = { column = "A", negative = "refund" }\ntype = "T"'
    canonical = mapped(toml, A=[1.0, -2.0], T=["reversal", "authorisation"])

    assert [1.0, 2.0] == canonical["amount"].tolist()
    assert ["reversal", "refund"] == canonical["type"].tolist()


def test_several_columns_make_one_text():
    toml = 'event_time = { template = "{Y}-{M:02}-{D:02}T{T}:00", zone = "UTC" }\ncard_id = { template = "{Y}-{M}" }'
    canonical = mapped(toml, Y=[2002, 2002], M=[9, 10], D=[1, 2], T=objects("06:21", None))

    assert [datetime(2002, 9, 1, 6, 21, tzinfo=UTC), None] == canonical["event_time"].tolist()
    assert ["2002-9", "2002-10"] == canonical["card_id"].tolist()


def test_naive_times_are_read_in_their_zone():
    toml = 'event_time = { column = "W", zone = "Europe/Berlin" }'
    winter, summer = datetime(2024, 1, 1, 11, tzinfo=UTC), datetime(2024, 7, 1, 10, tzinfo=UTC)

    assert [winter, summer] == mapped(toml, W=["2024-01-01 12:00:00", "2024-07-01T12:00:00"])["event_time"].tolist()
    assert [winter, summer] == mapped(toml, W=np.array(["2024-01-01T12", "2024-07-01T12"], "datetime64[s]"))[
        "event_time"
    ].tolist()


def test_a_time_with_an_offset_of_its_own_keeps_it():
    toml = 'event_time = { column = "W", zone = "Europe/Berlin" }'

    assert ["2024-01-01T12:00:00Z"] == mapped(toml, W=["2024-01-01T12:00:00Z"])["event_time"].tolist()


def test_the_first_of_two_equal_hours_is_meant_when_clocks_go_back():
    toml = 'event_time = { column = "W", zone = "Europe/Berlin" }'

    assert [datetime(2024, 10, 27, 0, 30, tzinfo=UTC)] == mapped(toml, W=["2024-10-27 02:30:00"])["event_time"].tolist()


def test_epoch_numbers_get_the_field_of_their_unit():
    assert [5] == mapped('event_time = { column = "W", unit = "ms" }', W=[5])["event_time_ms"].tolist()
    assert [5] == mapped('label_time = { column = "W", unit = "s" }', W=[5])["label_time_s"].tolist()


def test_flags_are_true_for_the_values_named_or_for_any_value():
    assert [True, False, None] == mapped(
        'is_fraud = { column = "F", true = ["Yes", 1] }', F=objects("Yes", "No", None)
    )["is_fraud"].tolist()
    assert [True, False] == mapped('declined = { column = "E", present = true }', E=objects("Bad PIN", None))[
        "declined"
    ].tolist()


def test_placeholders_of_nothing_become_nothing():
    toml = 'mcc = { column = "M", missing = ["", "NA", 0] }'

    assert [5411, None, None, None] == mapped(toml, M=objects(5411, "NA", 0, ""))["mcc"].tolist()


def test_personal_text_can_be_hashed_before_anyone_sees_it():
    digest = hashlib.sha256(b"a@b.c").hexdigest()

    assert [digest, None] == mapped('email_hash = { column = "E", hash = true }', E=objects("a@b.c ", None))[
        "email_hash"
    ].tolist()


def test_ids_can_be_generated_and_values_be_constant():
    canonical = mapped('transaction_id = { generate = "row" }\ncurrency = { value = "EUR" }', A=[7, 8])

    assert ([0, 1], ["EUR", "EUR"]) == (canonical["transaction_id"].tolist(), canonical["currency"].tolist())


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ('amout = "A"', "did you mean amount"),
        ('cvv = "A"', "never read it"),
        ('user_id = "card_cvv"', "never read it"),
        ("user_id = 5", "must be a column name or a table"),
        ("user_id = {}", "exactly one of"),
        ('user_id = { column = "A", value = "B" }', "exactly one of"),
        ('user_id = { colum = "A" }', "did you mean column"),
        ("user_id = { column = 5 }", "cannot be 5"),
        ('user_id = { column = "A", hash = 1 }', "cannot be 1"),
        ('amount = { column = "A", rounding = "up" }', "must be one of"),
        ('amount = { column = "A", unit = "s" }', "means nothing for amount"),
        ('user_id = { column = "A", negative = "refund" }', "means nothing for user_id"),
        ('user_id = { generate = "row" }', "means nothing for user_id"),
        ('event_time = { column = "A", unit = "days" }', "must be one of"),
        ('event_time = { column = "A", zone = "Mars/Olympus" }', "unknown here"),
        ('event_time = { column = "A", zone = "../etc/passwd" }', "unknown here"),
        ('user_id = { template = "{A.__class__}" }', "only"),
        ('user_id = { template = "{A[0]}" }', "only"),
        ('user_id = { template = "{A!r}" }', "only"),
        ('user_id = { template = "{A:{B}}" }', "only"),
        ('user_id = { template = "{}" }', "only"),
        ('user_id = { template = "{A" }', "malformed"),
        ('user_id = { template = "constant" }', "must use its columns"),
        ('user_id = { columns = ["B"], template = "{A}" }', "must use its columns"),
        ("custom = 5", "must be a table"),
        ('[custom]\npin = "A"', "never read it"),
        ("user_id = ", "not valid TOML"),
    ],
)
def test_a_mapping_that_means_nothing_is_refused(toml, words):
    with pytest.raises(ConfigurationError, match=words):
        ColumnMapping.from_toml(toml)


def test_a_column_that_the_table_lacks_is_named_with_the_closest():
    with pytest.raises(ConfigurationError, match="'CUSTOMER_ID', which the table lacks; did you mean CUSTOMER_IDS"):
        mapped('user_id = "CUSTOMER_ID"', CUSTOMER_IDS=[1])


def test_a_template_that_does_not_fit_is_refused():
    with pytest.raises(ConfigurationError, match="does not fit"):
        mapped('user_id = { template = "{A:02d}" }', A=["x"])


@pytest.mark.parametrize("pair", ["user_id", "=A", "user_id=", "usr_id=A"])
def test_a_pair_that_is_none_is_refused(pair):
    with pytest.raises(ConfigurationError):
        ColumnMapping.from_pairs([pair])


def test_a_file_is_loaded_by_path_and_a_shipped_mapping_by_name(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('user_id = "A"')

    assert "A" == ColumnMapping.load(path).sources["user_id"].column
    assert ("aws_fraud_detector", "handbook", "sparkov", "tabformer") == shipped()
    assert all(ColumnMapping.load(name).sources for name in shipped())


def test_an_absent_file_or_name_is_refused(tmp_path):
    for name in ("handbok", tmp_path / "absent.toml", tmp_path):
        with pytest.raises(ConfigurationError):
            ColumnMapping.load(name)


def test_nested_values_are_left_for_the_encoder_to_refuse():
    table = {**BASE, "user_id": objects(["a"], ["b"])}
    canonical = ColumnMapping.from_toml('user_id = { column = "user_id", missing = [""] }').apply(table)

    assert [["a"], ["b"]] == canonical["user_id"].tolist()


def test_what_a_mapping_makes_can_be_encoded():
    toml = """
        transaction_id = { generate = "row" }
        user_id = "CUSTOMER"
        amount = { column = "TOTAL", strip = "$", negative = "refund" }
        event_time = { column = "WHEN", zone = "UTC" }
        is_fraud = { column = "FRAUD", true = ["Y"] }
    """
    table = {
        "CUSTOMER": np.array([1, 1]),
        "TOTAL": objects("$5.10", "$-2"),
        "WHEN": np.array(["2024-01-01", "2024-01-02"], "datetime64[ns]"),
        "FRAUD": objects("Y", "N"),
    }
    encoded = ENCODER.encode_columns(ColumnMapping.from_toml(toml).apply(table))

    assert [510, 200] == encoded.ints[:, fields.AMOUNT_MINOR].tolist()
    assert [fields.AUTHORISATION, fields.REFUND] == encoded.ints[:, fields.FLAGS].tolist()
    assert [1, 0] == encoded.labels.tolist()
