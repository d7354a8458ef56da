"""Mutual TLS between parties: each proves its role with a certificate of the run's own authority.

A party makes its key in its own memory and sends out a signing request; the authority of the run lives with whoever
drives the parties, for as long as it takes to sign. No key is on a disk or leaves its process.
"""

import contextlib
import datetime as dt
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from parties.errors import PeerUnproven

_T = TypeVar("_T")

_LIFETIME = dt.timedelta(days=30)  # longer than any run
_SKEW = dt.timedelta(days=1)  # hosts whose clocks differ still meet
_RECORD_BYTES = 1 << 14  # what one TLS record holds
_SLICE_BYTES = 1 << 18  # what is handed to OpenSSL at once
_PROVEN = b"\x06"


class Authority:
    """Signs the certificates of one run's parties. Its key lives as long as this object and is never written."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = _name("mpcache-bench")
        self._certificate = (
            _dated(x509.CertificateBuilder())
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def certificate(self) -> bytes:
        """What a peer's certificate is checked against, PEM."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def sign(self, role: str, request: bytes) -> bytes:
        """A certificate for a party, PEM.

        Args:
            role: Whose it is, as the signer knows it: what the request says of itself counts for nothing.
            request: From `Identity.request`.

        Raises:
            ValueError: The request is none, or its sender has not the key.
        """
        asked = x509.load_pem_x509_csr(request)
        if not asked.is_signature_valid:
            raise ValueError(f"the signing request of {role} is not signed by its own key")
        certificate = (
            _dated(x509.CertificateBuilder())
            .subject_name(_name(role))
            .issuer_name(self._certificate.subject)
            .public_key(asked.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM)


class Identity:
    """A party's key, and once they are there its certificate and the authority's."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = self._authority = b""

    @property
    def certified(self) -> bool:
        """Whether an authority has signed."""
        return bool(self._certificate)

    def request(self) -> bytes:
        """A signing request, PEM."""
        builder = x509.CertificateSigningRequestBuilder().subject_name(_name("party"))
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def certify(self, certificate: bytes, authority: bytes) -> None:
        """Takes what the authority has signed.

        Args:
            certificate: From `Authority.sign`.
            authority: The authority's own certificate.
        """
        self._certificate, self._authority = certificate, authority

    def secure(self, sock: socket.socket, peer: str, *, dialled: bool, timeout_s: float) -> "TlsSocket":
        """Turns a connection into a TLS session with a peer that has proven its role.

        Args:
            sock: A connected socket, from now on the session's.
            peer: The role that must be at the other end.
            dialled: Whether we dialled; whoever did is TLS' client.
            timeout_s: How long the handshake may take.

        Raises:
            PeerUnproven: The peer has no certificate of this run for that role, has refused ours, or did not answer.
        """
        sock.setblocking(False)
        context = self._context(ssl.PROTOCOL_TLS_CLIENT if dialled else ssl.PROTOCOL_TLS_SERVER)
        session = context.wrap_socket(sock, server_side=not dialled, do_handshake_on_connect=False)
        try:
            reason = _prove(session, peer, time.monotonic() + timeout_s)
        except OSError as error:
            reason = _why(error)
        if reason is not None:
            session.close()
            raise PeerUnproven(peer, reason)
        return TlsSocket(session)

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # the role is checked instead: addresses say nothing of who is there
        context.verify_mode = ssl.CERT_REQUIRED
        if protocol == ssl.PROTOCOL_TLS_SERVER:
            context.num_tickets = 0  # sessions are not resumed, and a ticket would look like a message
        context.load_verify_locations(cadata=self._authority.decode())
        key = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        with _in_memory(key + self._certificate) as path:
            context.load_cert_chain(path)
        return context


class TlsSocket:
    """A TLS session with those methods of a non-blocking socket that a `Link` uses.

    OpenSSL keeps nothing of a next frame back when a frame has been read, since no record holds parts of two frames: so
    waiting for the descriptor is waiting for a frame. One thread may send while another receives; each call is short.
    """

    def __init__(self, session: ssl.SSLSocket) -> None:
        self._session = session
        self._lock = threading.Lock()  # OpenSSL's sessions are not made for two threads at once

    def sendmsg(self, buffers: list[memoryview]) -> int:
        """Sends what fits into a few records; returns the number of bytes. What could not be sent must come again.

        Raises:
            BlockingIOError: Nothing can be taken now.
            OSError: The connection is gone.
        """
        small = sum(map(len, buffers)) <= _RECORD_BYTES  # header and payload then share a record, and a packet
        part = b"".join(buffers) if small else buffers[0][:_SLICE_BYTES]
        with self._lock, _as_socket():
            return self._session.send(part)

    def recv_into(self, room: memoryview) -> int:
        """Reads what has arrived; 0 at the end of the connection, or for no room.

        Raises:
            BlockingIOError: Nothing has.
            OSError: The connection is gone.
        """
        with self._lock, _as_socket():
            return self._session.recv_into(room)

    def recv(self, size: int, flags: int) -> bytes:
        """What has arrived as it is on the wire, unread with `MSG_PEEK`: whether there is anything."""
        return socket.socket.recv(self._session, size, flags)

    def setblocking(self, flag: bool) -> None:
        """As a socket's."""
        self._session.setblocking(flag)

    def setsockopt(self, level: int, option: int, value: int) -> None:
        """As a socket's."""
        self._session.setsockopt(level, option, value)

    def fileno(self) -> int:
        """As a socket's."""
        return self._session.fileno()

    def shutdown(self, how: int) -> None:
        """As a socket's; the session stays as it is, for another thread may be in it."""
        socket.socket.shutdown(self._session, how)

    def close(self) -> None:
        """As a socket's."""
        self._session.close()


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _dated(builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        builder.serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + _LIFETIME)
    )


def _prove(session: ssl.SSLSocket, peer: str, deadline: float) -> str | None:
    """Shakes hands; what is wrong with the peer, if anything is."""
    _until(session, session.do_handshake, deadline)
    if (found := _role_of(session)) != peer:
        return f"its certificate is for {found!r:.40}"
    _until(session, lambda: session.send(_PROVEN), deadline)
    accepted = _until(session, lambda: session.recv(1), deadline)  # the peer's word that it takes us, too
    return None if accepted == _PROVEN else "it has closed the connection, and may have refused our certificate"


def _role_of(session: ssl.SSLSocket) -> str:
    """The role in a certificate that the authority has signed."""
    certificate = x509.load_der_x509_certificate(session.getpeercert(binary_form=True) or b"")
    return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def _until(session: ssl.SSLSocket, step: Callable[[], _T], deadline: float) -> _T:
    """Repeats a step of a non-blocking session until it does not have to wait."""
    while True:
        try:
            return step()
        except ssl.SSLWantReadError:
            events = select.POLLIN
        except ssl.SSLWantWriteError:
            events = select.POLLOUT
        poll = select.poll()
        poll.register(session.fileno(), events)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise TimeoutError("it did not answer in time")


@contextlib.contextmanager
def _as_socket() -> Iterator[None]:
    try:
        yield
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
        raise BlockingIOError from None


@contextlib.contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """A path to memory of this process: OpenSSL reads keys from files only."""
    descriptor = os.memfd_create("identity", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not of this run ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        refused = "ALERT" in (error.reason or "")
        return f"{'it refused our certificate' if refused else 'what it says is no TLS'} ({error.reason or 'closed'})"
    return error.strerror or str(error)
