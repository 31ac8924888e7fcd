"""Errors that a user can mend: raised where they are known, made an exit code in `cli.py`."""

from __future__ import annotations


class GlmAnnotateError(Exception):
    """Base of all errors that end a run with one line on stderr.

    The message is one line: the file, the record if there is one, what was found, what is
    allowed, and the command or option that mends it.
    """

    exit_code = 1


class InputError(GlmAnnotateError):
    """A file, record or option value that the program cannot work with."""


class BundleError(GlmAnnotateError):
    """A model bundle that is incomplete, damaged or not what its card says."""


class UsageError(GlmAnnotateError):
    """Options that contradict each other or name something unknown."""

    exit_code = 2
