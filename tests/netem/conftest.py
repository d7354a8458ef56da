"""What the tests of links share."""

import pytest

from netem.lab import Lab


@pytest.fixture(scope="module")
def lab():
    with Lab.up(3) as made:
        yield made
