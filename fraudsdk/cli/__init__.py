"""
The command line: `main` is the console script ``fraudsdk``; ``python -m fraudsdk.cli`` is the same.

A command's module is cheap to import; what is heavy is imported when the command runs, so that ``--help`` is instant.
"""

from fraudsdk.cli.app import main

__all__ = ["main"]
