"""Preprocessing on disk: a cell's correlated randomness is received and written before the cell begins."""

from parties.engines.fss.dealing.read_ahead import FramesAhead
from parties.engines.fss.dealing.receiver import MATERIAL
from parties.engines.fss.dealing.sender import END
from parties.engines.fss.dealing.storage import StoredFrames, new_file, write
from parties.engines.fss.randomness.frames import LONGEST_BYTES
from parties.errors import OutOfStep
from parties.metering.meter import StageMeter
from parties.metering.stages import RECORDING
from parties.transport.link import Link

WRITE, READ = "offline.write", "offline.read"


class StoredReceiver:
    """A `Receiver` that first stores everything on disk; receiving, writing and reading have stages of their own.

    Args:
        dealer: Link to the dealer.
        meter: The party's stage meter.
        on_gpu: Whether the party computes on a GPU.
    """

    def __init__(self, dealer: Link, meter: StageMeter, *, on_gpu: bool = False) -> None:
        self._dealer, self._meter, self._on_gpu = dealer, meter, on_gpu
        self._stored: StoredFrames | FramesAhead | None = None

    def await_recording(self) -> None:
        """Waits until the dealer has recorded the segments of a token, which it does before it sends anything.

        Masking a cache takes nothing from the dealer. A prompt does, so that the dealer records between two frames.

        Raises:
            PeerLost: The dealer is gone.
        """
        with self._meter.stage(RECORDING):
            self._dealer.await_peer()

    def fetch(self) -> None:
        """Writes everything the dealer sends up to the end of the cell; drops what is left from before.

        Raises:
            StorageError: The file cannot be written.
            PartyError: The link's own errors.
        """
        self._drop()
        file = new_file()
        with self._meter.stage(WRITE):
            write(file, self._receive)
            self._stored = FramesAhead(file) if self._on_gpu else StoredFrames(file)

    def next(self) -> memoryview:
        """The next frame from disk; on a CPU it lasts until the next call.

        Raises:
            StorageError: The file is damaged or used up.
        """
        if self._stored is None:
            raise AssertionError("`fetch` comes before `next`")
        with self._meter.stage(READ):
            return self._stored.next()

    def finish(self) -> None:
        """Removes what is left, and receives the dealer's last frame.

        Raises:
            PartyError: The link's own errors.
        """
        self._drop()
        if (word := self._receive()) != END:
            raise OutOfStep(self._dealer.peer, MATERIAL, "the end of the randomness", f"{len(word)} bytes more")

    def _receive(self) -> bytearray:
        with self._meter.stage(MATERIAL):
            return self._dealer.receive(at_most=LONGEST_BYTES)

    def _drop(self) -> None:
        if self._stored is not None:
            self._stored.close()
            self._stored = None
