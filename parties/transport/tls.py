"""Mutual TLS between parties: each proves its role with a certificate from the authority of the run.

A party generates its key in memory and sends a signing request. The authority of the run exists in the driver of the
parties, only until it has signed. No key is written to disk or leaves its process.
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
_SKEW = dt.timedelta(days=1)  # tolerated difference between the clocks of hosts
_RECORD_BYTES = 1 << 14  # capacity of a TLS record
_SLICE_BYTES = 1 << 18  # maximum bytes per call of OpenSSL
_PROVEN = b"\x06"


class Authority:
    """Signs the certificates of the parties of one run. Its key exists only in this object and is never written."""

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
        """The certificate of the authority, PEM, which verifies those of the peers."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def sign(self, role: str, request: bytes) -> bytes:
        """A certificate for a party, PEM.

        Args:
            role: Role of the party, as the signer knows it; the subject of the request is ignored.
            request: From `Identity.request`.

        Raises:
            ValueError: The request is not valid, or is not signed with its own key.
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
    """The key of a party and, once signed, its certificate and that of the authority."""

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
        """Installs the certificates.

        Args:
            certificate: Certificate of this party, from `Authority.sign`.
            authority: Certificate of the authority.
        """
        self._certificate, self._authority = certificate, authority

    def secure(self, sock: socket.socket, peer: str, *, dialled: bool, timeout_s: float) -> "TlsSocket":
        """Starts a TLS session on a connection and verifies the role of the peer.

        Args:
            sock: A connected socket; the session takes ownership.
            peer: Role that the peer must prove.
            dialled: Whether this party dialled, which makes it the TLS client.
            timeout_s: Maximum duration of the handshake in seconds.

        Raises:
            PeerUnproven: The peer has no certificate of this run for that role, has refused ours, or did not respond.
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
        context.check_hostname = False  # the role is checked instead, since addresses do not identify a party
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
    """A TLS session with the methods of a non-blocking socket that `Link` uses.

    No record holds parts of two frames, so OpenSSL buffers nothing of the next frame when a frame has been read, and
    polling the descriptor is polling for a frame. One thread may send while another receives; each call is short.
    """

    def __init__(self, session: ssl.SSLSocket) -> None:
        self._session = session
        self._lock = threading.Lock()  # an OpenSSL session is not thread-safe

    def sendmsg(self, buffers: list[memoryview]) -> int:
        """Sends at most a few records; returns the number of bytes. The caller must send the remaining bytes again.

        Raises:
            BlockingIOError: No bytes can be sent now.
            OSError: The connection is broken.
        """
        small = sum(map(len, buffers)) <= _RECORD_BYTES  # header and payload then share one record and one packet
        part = b"".join(buffers) if small else buffers[0][:_SLICE_BYTES]
        with self._lock, _as_socket():
            return self._session.send(part)

    def recv_into(self, room: memoryview) -> int:
        """Reads the bytes that have arrived; returns 0 at the end of the connection, or if `room` is empty.

        Raises:
            BlockingIOError: No bytes have arrived.
            OSError: The connection is broken.
        """
        with self._lock, _as_socket():
            return self._session.recv_into(room)

    def recv(self, size: int, flags: int) -> bytes:
        """Encrypted bytes from the wire; with `MSG_PEEK` they stay unread, to test whether any have arrived."""
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
        """As a socket's; does not touch the TLS session, which another thread may be using."""
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
    """Performs the handshake; returns why the peer is not accepted, or None."""
    _until(session, session.do_handshake, deadline)
    if (found := _role_of(session)) != peer:
        return f"its certificate is for {found!r:.40}"
    _until(session, lambda: session.send(_PROVEN), deadline)
    accepted = _until(session, lambda: session.recv(1), deadline)  # the peer confirms that it accepts this party
    return None if accepted == _PROVEN else "it has closed the connection, and may have refused our certificate"


def _role_of(session: ssl.SSLSocket) -> str:
    """The role in the peer's certificate, which the handshake has verified."""
    certificate = x509.load_der_x509_certificate(session.getpeercert(binary_form=True) or b"")
    return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def _until(session: ssl.SSLSocket, step: Callable[[], _T], deadline: float) -> _T:
    """Repeats a step of a non-blocking session until it completes.

    Raises:
        TimeoutError: The deadline has passed.
    """
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
            raise TimeoutError("it did not respond in time")


@contextlib.contextmanager
def _as_socket() -> Iterator[None]:
    try:
        yield
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
        raise BlockingIOError from None


@contextlib.contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """A path to memory of this process, since OpenSSL reads keys only from files."""
    descriptor = os.memfd_create("identity", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not from this run ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        refused = "ALERT" in (error.reason or "")
        return f"{'it refused our certificate' if refused else 'it does not speak TLS'} ({error.reason or 'closed'})"
    return error.strerror or str(error)
