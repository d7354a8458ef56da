"""Binds ports, with errors that name the address."""

import errno
import socket

from parties.errors import AddressInUse, AddressUnusable

Address = tuple[str, int]  # host, port


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on an IPv4 or IPv6 address or name; port 0 takes a free one.

    Raises:
        AddressInUse: Another process listens on host and port.
        AddressUnusable: The host is not an address of this machine, or the port may not be bound.
    """
    if not 0 <= port <= 65535:
        raise AddressUnusable(host, port, "a port is a number from 0 to 65535")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family, backlog=16)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise AddressInUse(host, port) from error
        raise AddressUnusable(host, port, error.strerror or str(error)) from error


def address_of(listener: socket.socket) -> Address:
    """The (host, port) of a listening socket."""
    host, port = listener.getsockname()[:2]
    return host, port
