"""Trained heads that some policies rate tokens with: their file format, and how they enter an engine."""

from parties.heads.format import Head, HeadError, fingerprint, load_head, read_head, save_head

__all__ = ["Head", "HeadError", "fingerprint", "load_head", "read_head", "save_head"]
