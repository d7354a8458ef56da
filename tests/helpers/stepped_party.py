"""A real party on a machine whose clock is set again and again while it works."""

import itertools
import time
from collections.abc import Mapping
from typing import Any
from unittest import mock

from parties.roles.party import Party
from parties.roles.reports import PartyResult

YEAR_S = 365 * 86400.0


class SteppedParty(Party):
    """`time.time` jumps by a year at each look."""

    def run(self, job: Mapping[str, Any]) -> PartyResult:
        real, steps = time.time, itertools.cycle([YEAR_S, -YEAR_S, 0.0])
        with mock.patch("time.time", side_effect=lambda: real() + next(steps)):
            return super().run(job)
