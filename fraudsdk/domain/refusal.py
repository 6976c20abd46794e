"""How a parser of one value says no; whoever knows the field and the transaction turns it into a typed error."""

from __future__ import annotations


class RefusedValue(ValueError):
    """
    One value is not what its field wants.

    Never leaves the library: it becomes an `InvalidTransactionError`, which also names field, transaction and row.

    Parameters
    ----------
    problem : str
        What was wrong and what it was, already masked; it follows the field's name in a sentence.
    remedy : str
        What to send instead.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(problem, remedy)
