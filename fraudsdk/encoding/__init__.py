"""From a `Transaction` to fixed-width numbers: keyed hashes, vocabulary codes, minor units of one currency."""

from fraudsdk.encoding.encoder import LABEL_NEVER, LABEL_UNKNOWN, EncodedTransactions, Encoder
from fraudsdk.encoding.mapping import ColumnMapping
from fraudsdk.encoding.vocabulary import Vocabulary

__all__ = ["LABEL_NEVER", "LABEL_UNKNOWN", "ColumnMapping", "EncodedTransactions", "Encoder", "Vocabulary"]
