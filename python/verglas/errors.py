"""The exceptions verglas raises: each message says what was wrong, where, what was expected and what to do."""

from __future__ import annotations


class VerglasError(Exception):
    """Base of every error that verglas raises on purpose; the command line prints it as one line, exit status 1."""


class InputError(VerglasError, ValueError):
    """An argument or a file's content is not what it has to be."""


class FormatError(InputError):
    """A file breaks its format; the message names the file and the line, label or particle."""


class DeviceError(VerglasError, RuntimeError):
    """A device cannot be used: no driver, unknown name, out of memory."""


class DeviceMemoryError(DeviceError):
    """A device had too little memory for what was asked; with fewer images at a time it may suffice."""


class VerglasWarning(UserWarning):
    """Something a file or an argument left out or contradicts, what was assumed, and how to say otherwise."""
