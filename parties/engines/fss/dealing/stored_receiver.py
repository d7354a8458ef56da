"""A party's stock of the dealer's material: all of a cell, on its own disk, before the cell begins."""

from parties.engines.fss.dealing.receiver import MATERIAL
from parties.engines.fss.dealing.sender import END
from parties.engines.fss.dealing.storage import StoredMaterial, new_file, write
from parties.engines.fss.randomness.frames import LONGEST_BYTES
from parties.errors import OutOfStep
from parties.metering.meter import StageMeter
from parties.transport.link import Link

WRITE, READ = "offline.write", "offline.read"


class Stock:
    """Takes the place of an `Intake` where material is stored; receiving, writing and reading are stages of their own.

    Args:
        dealer: link to the dealer.
        meter: the party's stage meter.
    """

    def __init__(self, dealer: Link, meter: StageMeter) -> None:
        self._dealer, self._meter = dealer, meter
        self._stored: StoredMaterial | None = None

    def lay_in(self) -> None:
        """Writes what the dealer sends now, up to the end of the cell; what is left of before is dropped.

        Raises:
            MaterialFile: it cannot be written.
            PartyError: the link's own errors.
        """
        self._drop()
        file = new_file()
        with self._meter.stage(WRITE):
            write(file, self._receive)
            self._stored = StoredMaterial(file)

    def next(self) -> bytes:
        """The next frame from disk.

        Raises:
            MaterialFile: the file is not what was written, or is used up.
        """
        if self._stored is None:
            raise AssertionError("a stock is laid in before it is used")
        with self._meter.stage(READ):
            return self._stored.next()

    def finish(self) -> None:
        """Removes what is left, and hears the dealer's last word.

        Raises:
            PartyError: the link's own errors.
        """
        self._drop()
        if (word := self._receive()) != END:
            raise OutOfStep(self._dealer.peer, MATERIAL, "the end of the material", f"{len(word)} bytes more")

    def _receive(self) -> bytearray:
        with self._meter.stage(MATERIAL):
            return self._dealer.receive(at_most=LONGEST_BYTES)

    def _drop(self) -> None:
        if self._stored is not None:
            self._stored.close()
            self._stored = None
