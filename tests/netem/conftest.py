"""Fixtures of the tests of links."""

from collections.abc import Iterator

import pytest

from netem.lab import Lab


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab.up(3) as made:
        yield made
