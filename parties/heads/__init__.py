"""Trained heads that some policies rate tokens with.

Read in this order: `format` (the file format), `shipped` (heads that come with the project), `untrained` (random
heads), `folding` (the form that an engine installs).
"""

from parties.heads.format import Head, HeadError, fingerprint, load_head, read_head, save_head

__all__ = ["Head", "HeadError", "fingerprint", "load_head", "read_head", "save_head"]
