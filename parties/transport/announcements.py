"""Public numbers that the client announces to the server."""

from parties.errors import PartyError
from parties.transport.link import Link

NUMBER_BYTES = 1


class BadNumber(PartyError):  # noqa: N818 - named for the condition
    """The client announced an impossible number."""

    def __str__(self) -> str:
        """The number and its range."""
        number, most = self.args
        return (
            f"the client announced {number}; it must be from 1 to {most}; check that all parties run the same version"
        )


def announced(peer: Link, number: int | None, most: int) -> int:
    """Sends a number from the client, which passes it, to the server. Half a round, one byte of payload.

    Args:
        peer: Link to the other one.
        number: The number, 1 to `most`; None at the server.
        most: The largest number that the server accepts, below 256.

    Raises:
        BadNumber: The number that arrives is another one.
    """
    if number is not None:
        peer.send(bytes([number]))
        return number
    found = int.from_bytes(peer.receive(at_most=NUMBER_BYTES), "big")
    if not 1 <= found <= most:
        raise BadNumber(found, most)
    return found
