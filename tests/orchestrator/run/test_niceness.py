"""The priority of the parties: what Ray starts with, and what the record says of another one."""

import pytest

from orchestrator.run import niceness


def test_rays_workers_start_at_the_priority_of_other_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_worker_niceness", raising=False)
    assert niceness.settings() == {"RAY_worker_niceness": "0"}


def test_a_niceness_of_the_users_own_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_worker_niceness", "5")
    assert niceness.settings() == {"RAY_worker_niceness": "5"}


def test_parties_that_run_behind_other_programs_are_named() -> None:
    (warning,) = niceness.remarks({"client": 15, "server": 0, "dealer": 15})
    assert warning.startswith("client, dealer ran at niceness 15")
    assert "RAY_worker_niceness=0" in warning


def test_parties_at_any_other_priority_are_not() -> None:
    assert niceness.remarks({"client": 0, "server": -5}) == ()
