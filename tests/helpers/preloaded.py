"""Imported once by the server that forks parties, so that they need not import what takes seconds."""

import gc

import hypothesis  # noqa: F401 - as does pytest, which modules of tests import
import pytest  # noqa: F401
import transformers  # noqa: F401

import parties.engines.crypten.engine
import parties.engines.fss.dealing.dealer
import parties.engines.fss.engine
import parties.engines.fss.recording.machine
import parties.roles.party  # noqa: F401
import tests.helpers.policy_cases
import tests.helpers.private_decoding  # noqa: F401

gc.freeze()  # collections in the parties pass over all of this
