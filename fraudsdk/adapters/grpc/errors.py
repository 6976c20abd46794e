"""
The product's errors as statuses of gRPC, and back: the one table of both.

| raised by the scorer       | status              | details                        | raised by the client       |
|----------------------------|---------------------|--------------------------------|----------------------------|
| `InvalidTransactionError`  | INVALID_ARGUMENT    | BadRequest, Refusal            | `InvalidTransactionError`  |
| `StateUnavailableError`    | UNAVAILABLE         | RetryInfo                      | `ServiceUnavailableError`  |
| `DeadlineExceededError`    | DEADLINE_EXCEEDED   |                                | `DeadlineExceededError`    |
| `ModelError`               | FAILED_PRECONDITION |                                | `ModelError`               |
| `ReadOnlyStateError`       | UNIMPLEMENTED       |                                | `ServiceError`             |
| anything else              | INTERNAL            | none, and no text of the cause | `ServiceError`             |
"""

from __future__ import annotations

from typing import Any, Final

import grpc
from google.protobuf.any_pb2 import Any as Packed
from google.rpc import error_details_pb2, status_pb2

from fraudsdk.adapters.protobuf import field_on_the_wire
from fraudsdk.adapters.protobuf._generated import scoring_service_pb2 as pb
from fraudsdk.errors import (
    ConfigurationError,
    DeadlineExceededError,
    FraudSDKError,
    InvalidTransactionError,
    ModelError,
    ReadOnlyStateError,
    StateUnavailableError,
)

DETAILS_KEY: Final = "grpc-status-details-bin"
# When what is unavailable now is worth asking for again.
_RETRY_AFTER_NS: Final = 100_000_000


class ServiceError(FraudSDKError):
    """
    The service did not answer, for a reason that is none of the product's own.

    Parameters
    ----------
    code : grpc.StatusCode
    message : str
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        self.code = code
        super().__init__(f"{code.name}: {message}")


class ServiceUnavailableError(ServiceError, StateUnavailableError):
    """The service, or what it remembers, cannot be reached now.  Nobody's fault: retry or degrade."""


class NotAllowedError(ServiceError, ConfigurationError):
    """The service wants a token or certificate that it was not given, or one that allows more.  The operator must act."""


def refusal_of(error: InvalidTransactionError) -> pb.Refusal:
    """What a caller got wrong, as a message."""
    return pb.Refusal(
        field=field_on_the_wire(error.field),
        problem=error.problem,
        remedy=error.remedy,
        transaction_id=error.transaction_id,
        row=error.row,
    )


def invalid_of(refusal: pb.Refusal) -> InvalidTransactionError:
    """A message as the error that it was made of."""
    return InvalidTransactionError(
        refusal.field,
        refusal.problem,
        refusal.remedy,
        transaction_id=refusal.transaction_id if refusal.HasField("transaction_id") else None,
        row=refusal.row if refusal.HasField("row") else None,
    )


def status_of(error: Exception, where: str = "") -> status_pb2.Status:
    """
    An error as a status with its details.

    Parameters
    ----------
    error : Exception
    where : str
        What the request calls that which holds the fields of a transaction, such as ``"transaction"``; empty for the request
        itself.
    """
    if isinstance(error, InvalidTransactionError):
        return _status(grpc.StatusCode.INVALID_ARGUMENT, str(error), _bad_request(error, where), refusal_of(error))
    if isinstance(error, StateUnavailableError):
        later = error_details_pb2.RetryInfo()
        later.retry_delay.nanos = _RETRY_AFTER_NS
        return _status(grpc.StatusCode.UNAVAILABLE, str(error), later)
    if isinstance(error, DeadlineExceededError):
        return _status(grpc.StatusCode.DEADLINE_EXCEEDED, str(error))
    if isinstance(error, ModelError):
        return _status(grpc.StatusCode.FAILED_PRECONDITION, str(error))
    if isinstance(error, ReadOnlyStateError):
        return _status(grpc.StatusCode.UNIMPLEMENTED, str(error))
    return _status(grpc.StatusCode.INTERNAL, "the service failed; its log says why")


def code_of(error: Any) -> grpc.StatusCode:
    """Status of a call that failed; one that a channel was closed under has none of its own."""
    code = error.code() if isinstance(error, grpc.Call) else None
    return code if isinstance(code, grpc.StatusCode) else grpc.StatusCode.UNKNOWN


def error_of(error: Any) -> FraudSDKError:
    """What a client raises for a call that failed, a `grpc.RpcError`."""
    code = code_of(error)
    text = (error.details() if isinstance(error, grpc.Call) else None) or type(error).__name__
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        refusal = _detail(error, pb.Refusal())
        return ServiceError(code, text) if refusal is None else invalid_of(refusal)
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return ServiceUnavailableError(code, text)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceededError(f"the service did not answer in time ({text}); decide without it, or wait longer")
    if code is grpc.StatusCode.FAILED_PRECONDITION:
        return ModelError(text)
    if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        return NotAllowedError(code, text)
    return ServiceError(code, text)


def retry_after_s(error: Any) -> float | None:
    """How long the service asks to be left alone; None where it does not say."""
    later = _detail(error, error_details_pb2.RetryInfo())
    return None if later is None else later.retry_delay.seconds + later.retry_delay.nanos / 1e9


def _status(code: grpc.StatusCode, message: str, *details: Any) -> status_pb2.Status:
    packed = []
    for detail in details:
        packed.append(Packed())
        packed[-1].Pack(detail)
    return status_pb2.Status(code=code.value[0], message=message, details=packed)


def _bad_request(error: InvalidTransactionError, where: str) -> error_details_pb2.BadRequest:
    if where and error.row is not None:
        where = f"{where}[{error.row}]"
    field = field_on_the_wire(error.field)
    violation = error_details_pb2.BadRequest.FieldViolation(
        field=f"{where}.{field}" if where else field, description=f"{error.problem}; {error.remedy}"
    )
    return error_details_pb2.BadRequest(field_violations=[violation])


def _detail(error: Any, into: Any) -> Any:
    """The first detail of a status that is of a message's type, read into it; None where there is none."""
    trailers = error.trailing_metadata() if isinstance(error, grpc.Call) else None
    for key, value in trailers or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            for packed in status_pb2.Status.FromString(value).details:
                if packed.Unpack(into):
                    return into
    return None
