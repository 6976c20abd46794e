"""
The error tree, sorted by who must act.

A message reads "what was wrong, what it was, what to do".  It never holds a card number: values that reach a message
pass through `fraudsdk.domain.masking.masked`.
"""

from __future__ import annotations


class FraudSDKError(Exception):
    """Root of every error this library raises on purpose."""


class ConfigurationError(FraudSDKError):
    """The operator must act, before start-up."""


class MissingExtraError(ConfigurationError):
    """
    A command or adapter needs packages that are not installed.

    Parameters
    ----------
    package : str
        The package that could not be imported.
    extra : str
        The extra of this distribution that brings it.
    """

    def __init__(self, package: str, extra: str) -> None:
        self.package = package
        self.extra = extra
        super().__init__(f"{package} is not installed; run: pip install 'fraudsdk[{extra}]'")


class InvalidTransactionError(FraudSDKError):
    """
    The caller sent something that is not a transaction; retrying cannot help.

    Parameters
    ----------
    field : str
        Name of the offending field, as the caller wrote it.
    problem : str
        What was wrong and what it was (already masked).
    remedy : str
        What to send instead.
    transaction_id : str or None
        Masked id of the transaction, where it is known.
    row : int or None
        Zero-based row of a table, where the transaction came from one.
    """

    def __init__(
        self, field: str, problem: str, remedy: str, *, transaction_id: str | None = None, row: int | None = None
    ) -> None:
        self.field = field
        self.problem = problem
        self.remedy = remedy
        self.transaction_id = transaction_id
        self.row = row
        where = "" if row is None else f" in row {row}"
        whose = "" if transaction_id is None else f" (transaction {transaction_id})"
        super().__init__(f"{field} {problem}{where}{whose}; {remedy}")

    def in_row(self, row: int) -> InvalidTransactionError:
        """The same error, naming the row of the table it was found in."""
        return InvalidTransactionError(
            self.field, self.problem, self.remedy, transaction_id=self.transaction_id, row=row
        )


class PoisonMessageError(FraudSDKError):
    """
    A message of a stream is no transaction, and will not be one when it is read again: it belongs to the dead letters.

    Parameters
    ----------
    reason : str
        A word for programs, such as ``"bad_json"`` or ``"invalid_transaction:amount"``.
    problem : str
        What was wrong and what it was (already masked).
    remedy : str
        What to send instead.
    """

    def __init__(self, reason: str, problem: str, remedy: str) -> None:
        self.reason = reason
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"message {problem}; {remedy}")


class SchemaUnavailableError(FraudSDKError):
    """The schema of a message cannot be fetched now.  Nobody's fault: read the message again later."""


class StreamUnavailableError(FraudSDKError):
    """No broker of a stream answers now.  Nobody's fault: retry."""


class FeatureSetError(ConfigurationError):
    """A feature set, or its file, declares something that cannot be computed."""


class ModelError(FraudSDKError):
    """The model's owner must act."""


class ModelNotFoundError(ModelError):
    """No artefact at that path."""


class InvalidModelError(ModelError):
    """A model file is malformed, hostile, or beyond the declared caps.  Nothing of it was executed."""


class CertificateError(ModelError):
    """An artefact has no parity certificate, or one that does not match its bytes."""


class SchemaMismatchError(ModelError):
    """
    Model and feature set do not agree.

    The message prints both fingerprints and the first feature that differs.
    """


class ExplanationError(ModelError):
    """Contributions of features do not add up to the margin that they explain."""


class StateError(FraudSDKError):
    """State that was kept cannot be used as asked; its owner must act."""


class StateInUseError(StateError):
    """Another process has the state."""


class ReadOnlyStateError(StateError):
    """What was asked would change state that is only read here; ask whoever writes it."""


class CorruptStateError(StateError):
    """A file of state is not as it was written, in a place where no crash leaves it."""


class StateUnavailableError(FraudSDKError):
    """Entity state cannot be read or kept now.  Nobody's fault: retry or degrade."""


class DeadlineExceededError(FraudSDKError):
    """The caller's deadline passed.  Nobody's fault: degrade."""


class SinkError(FraudSDKError):
    """A decision did not reach those who must know."""


class SinkBackpressureError(SinkError):
    """
    The sink is full; nothing was accepted.

    Parameters
    ----------
    retry_after_s : float
        Seconds after which it is worth asking again.
    """

    def __init__(self, message: str, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class SinkDeliveryError(SinkError):
    """
    Accepted decisions were lost.

    Parameters
    ----------
    transaction_ids : tuple of str
        The transactions whose decisions were lost.
    """

    def __init__(self, message: str, transaction_ids: tuple[str, ...]) -> None:
        self.transaction_ids = transaction_ids
        super().__init__(message)
