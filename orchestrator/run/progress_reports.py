"""Progress of the parties of a group: polled while they work, with the time of each report."""

import contextlib
import time
from collections.abc import Mapping

import ray
from ray.actor import ActorHandle

from parties.metering.stages import IDLE
from parties.roles.reports import PartyProgress


class ProgressReports:
    """Polls the progress of every party; a party is not asked again before it has answered.

    Args:
        actors: The parties by role.

    Attributes:
        last: Last progress of each role; None before its first.
    """

    def __init__(self, actors: Mapping[str, ActorHandle]) -> None:
        self.last: dict[str, PartyProgress | None] = dict.fromkeys(actors)
        self._actors = actors
        self._asked: dict[str, ray.ObjectRef] = {}
        self._stages: dict[str, str] = {}
        self._heard: dict[str, float] = {}

    def restart(self) -> None:
        """Begins to poll during a new call of the parties; stages and silence count from here."""
        self._asked = {role: actor.progress.remote() for role, actor in self._actors.items()}
        self._stages = {}
        self._heard = dict.fromkeys(self._actors, time.monotonic())

    def poll(self) -> None:
        """Takes in the reports that arrived since the last call; does not wait."""
        ready, _ = ray.wait(list(self._asked.values()), num_returns=len(self._asked), timeout=0)
        for role, ref in list(self._asked.items()):
            if ref in ready:
                with contextlib.suppress(ray.exceptions.RayError):
                    if answer := ray.get(ref):
                        self._note(role, PartyProgress.model_validate(answer))
                self._asked[role] = self._actors[role].progress.remote()

    def _note(self, role: str, progress: PartyProgress) -> None:
        self.last[role] = progress
        self._heard[role] = time.monotonic()
        if progress.stage not in ("", IDLE):
            self._stages[role] = progress.stage

    def seen(self, role: str) -> PartyProgress | None:
        """A role's last progress, with the last stage in which it was not idle."""
        last = self.last[role]
        return None if last is None else last.model_copy(update={"stage": self._stages.get(role, "")})

    def silent(self, seconds: float) -> list[str]:
        """The roles that have reported no progress for so long."""
        now = time.monotonic()
        return [role for role, heard in self._heard.items() if now - heard > seconds]
