"""What holds for all tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("any machine", deadline=None)  # no test depends on speed
settings.load_profile("any machine")


@pytest.fixture(autouse=True, scope="session")
def targets_of_tests_alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Runs of tests name their exporters where no Prometheus of the user's looks."""
    folder = tmp_path_factory.mktemp("targets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPCACHE_BENCH_TARGETS", str(folder))
        yield folder
