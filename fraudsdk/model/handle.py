"""The live model: readers take what is there, a swap warms the new one and then replaces it in one step."""

from __future__ import annotations

import threading

from fraudsdk.errors import SchemaMismatchError
from fraudsdk.model.artefact import CompiledModel


class ModelHandle:
    """
    Holds the model that scores now.

    Readers never lock and never wait.  Take `current` once per transaction and use that: asking twice may give two models.

    Parameters
    ----------
    model : CompiledModel
        The first one.
    """

    __slots__ = ("_swapping", "current")

    def __init__(self, model: CompiledModel) -> None:
        self._swapping = threading.Lock()
        self.current = model

    def swap(self, new: CompiledModel) -> CompiledModel:
        """
        Put `new` in place; transactions under way finish with the model they took.

        Returns
        -------
        CompiledModel
            The one that was replaced, to go back to.

        Raises
        ------
        SchemaMismatchError
            It reads other features; nothing was replaced.
        """
        with self._swapping:
            old = self.current
            if (new.schema_fingerprint, new.feature_names) != (old.schema_fingerprint, old.feature_names):
                raise SchemaMismatchError(
                    f"{new.version} reads features {new.schema_fingerprint[:16] or 'without fingerprint'}, the live model "
                    f"{old.version} reads {old.schema_fingerprint[:16] or 'without fingerprint'}; open a new scorer for it"
                )
            new.warm_up()
            self.current = new
        return old
