"""The rules of paths and stacks that hold while a job runs; the command line sets them here."""

from verglas.io.rules import use_file_rules

__all__ = ["use_file_rules"]
