"""A party's receiver from the dealer: frames arrive while earlier ones are used, up to a limit on memory."""

import threading
from collections import deque
from collections.abc import Callable

from parties.engines.fss.dealing.sender import END
from parties.engines.fss.randomness.frames import LONGEST_BYTES, RandomnessOutOfStep
from parties.errors import PartyError, PeerTimeout
from parties.metering.meter import StageMeter
from parties.transport.link import Link

MATERIAL = "offline.material"

AHEAD_BYTES = 256 << 20
"""Memory for frames not used yet: two tokens of SmolLM2-135M with a full cache of 1,024 tokens."""


class CreditExceeded(PartyError):  # noqa: N818 - named for the condition
    """The dealer sends more bytes than its credit."""

    def __init__(self, credit: int) -> None:
        super().__init__(credit)

    def __str__(self) -> str:
        return (
            f"the dealer sends randomness beyond its credit of {self.args[0]} bytes in this cell, so its link is "
            f"closed; check that all parties run the same version"
        )


class Receiver:
    """Receives in a thread of its own, and gives the dealer credit for the free memory.

    A dealer that exceeds its credit cannot fill this party's memory: the link is closed at the first frame that begins
    beyond it.

    Bytes are counted when they arrive, seconds only while the party waits for a frame.

    Args:
        dealer: Link to the dealer; this object's thread is the only one that receives on it until `finish`.
        meter: The party's stage meter.
    """

    def __init__(self, dealer: Link, meter: StageMeter) -> None:
        self._dealer, self._meter = dealer, meter
        self._frames: deque[bytearray] = deque()
        self._taken = self._credit = self._received = 0
        self._ended = False
        self._failure: PartyError | None = None
        self._changed = threading.Condition()
        with meter.stage(MATERIAL):
            self._send_credit()
        meter.put("mpcbench_dealer_backlog_bytes", self._waiting_bytes)
        threading.Thread(target=self._receive, name="receiver", daemon=True).start()

    def next(self) -> bytearray:
        """The next frame; waits for it.

        Raises:
            RandomnessOutOfStep: The dealer has nothing more.
            CreditExceeded: The dealer sent more than its credit.
            PartyError: The link's own errors.
        """
        with self._meter.stage(MATERIAL):
            if not self._frames:
                self._wait(lambda: bool(self._frames))
            if not self._frames:
                raise RandomnessOutOfStep(
                    "the dealer's correlated randomness is used up; check that all parties run the same version"
                )
            frame = self._frames.popleft()
            self._taken += len(frame)
            if self._taken + AHEAD_BYTES - self._credit >= AHEAD_BYTES // 8:
                self._send_credit()
        return frame

    def await_frame(self) -> None:
        """Waits without a timeout until there is a frame, and leaves it; see `Link.await_peer`.

        Raises:
            PartyError: The link's own errors.
        """
        with self._changed:
            self._changed.wait_for(lambda: bool(self._frames or self._ended or self._failure))
        if self._failure is not None:
            raise self._failure

    def finish(self) -> None:
        """Waits for the dealer's last frame; from then on, others may receive from it.

        Raises:
            PartyError: The link's own errors.
        """
        with self._meter.stage(MATERIAL):
            self._wait(lambda: False)
        self._meter.put("mpcbench_dealer_backlog_bytes", None)

    def _waiting_bytes(self) -> int:
        return sum(map(len, tuple(self._frames)))

    def _send_credit(self) -> None:
        self._credit = self._taken + AHEAD_BYTES
        try:
            self._dealer.send_json({"do": "credit", "upto": self._credit})
        except PartyError:
            if self._failure is not None:  # why the link was closed
                raise self._failure from None
            raise

    def _wait(self, enough: Callable[[], bool]) -> None:
        dealer = self._dealer
        self._meter.begin_call(dealer.peer)
        try:
            with self._changed:
                while not enough() and not self._ended and self._failure is None:
                    before = dealer.received_bytes
                    if not self._changed.wait(dealer.timeout_s) and dealer.received_bytes == before:
                        so_far = (dealer.sent_bytes, dealer.received_bytes)
                        raise PeerTimeout(dealer.peer, MATERIAL, *so_far, dealer.timeout_s)
        finally:
            self._meter.count(dealer.peer)
        if self._failure is not None and not enough():
            raise self._failure

    def _receive(self) -> None:
        account = self._meter.background_account(MATERIAL)
        try:
            while True:
                self._dealer.await_peer()
                frame = self._dealer.receive(account, at_most=LONGEST_BYTES)
                if frame != END and self._received >= self._credit:
                    raise CreditExceeded(self._credit)
                self._received += len(frame)
                with self._changed:
                    self._ended = frame == END
                    if self._ended:
                        return self._changed.notify_all()
                    self._frames.append(frame)
                    self._changed.notify_all()
        except PartyError as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()
            self._dealer.close()
