"""A Grafana server over HTTP: the client, its errors and the retries."""

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from grafana_client.api import GrafanaApi
from grafana_client.client import GrafanaException, GrafanaTimeoutError
from niquests.exceptions import RequestException

PAUSES_S = (0.5, 1.0, 2.0)
TIMEOUT_S = 10.0
NOT_FOUND = 404
TRANSIENT = frozenset({429, 500, 502, 503, 504})
"""Statuses of a busy or restarting server; a request that gets one is retried."""

Done = TypeVar("Done")


class GrafanaError(Exception):
    """Grafana cannot be reached or refuses; the message names the step, the reason and the fix."""


class Grafana:
    """A connection to one Grafana server, to be used in a `with` statement.

    Args:
        url: Address of the server, `http://host:3000`, with its path if it has one.
        token: Token of a service account. It is sent to that address only, and never appears in a message.
        timeout_s: Seconds without a response after which a request has failed.
        pauses_s: Seconds to wait before each retry of a step that failed with a transient fault.

    Raises:
        GrafanaError: The URL is not valid or contains a password; the token is empty or cannot be sent.
    """

    def __init__(
        self, url: str, token: str, *, timeout_s: float = TIMEOUT_S, pauses_s: Sequence[float] = PAUSES_S
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise GrafanaError(f"--grafana: {url!r} is not the address of a Grafana; write it as http://host:3000")
        if parts.username or parts.password:
            raise GrafanaError("--grafana: leave user and password out of the address; set GRAFANA_TOKEN instead")
        if not token or not token.isascii() or not token.isprintable():
            raise GrafanaError("GRAFANA_TOKEN is empty or not a token; set it to the token of a service account")
        self.url = url.rstrip("/")
        self._token = token
        self._timeout_s = timeout_s
        self._pauses_s = pauses_s
        connect: Any = GrafanaApi  # the client has no type annotations
        self._api = connect(
            token,
            protocol=parts.scheme,
            host=f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname,
            port=parts.port,
            url_path_prefix=f"{parts.path.strip('/')}/".lstrip("/"),
            timeout=timeout_s,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._api.client.s.close()

    def step(self, what: str, do: Callable[[Any], Done]) -> Done:
        """Run one step, with retries after transient faults.

        Args:
            what: The step, worded to follow "could not".
            do: Called with the client. It may run several times, so it must check what exists before it creates.

        Raises:
            GrafanaError: The step failed permanently.
        """
        for pause in self._pauses_s:
            try:
                return self._try(what, do)
            except _TransientError:
                time.sleep(pause)
        return self._try(what, do)

    def _try(self, what: str, do: Callable[[Any], Done]) -> Done:
        try:
            return do(self._api)
        except GrafanaTimeoutError:
            why = f"no response within {self._timeout_s:g} s; is it overloaded, or is this another service?"
            kind: type[GrafanaError] = _TransientError
        except GrafanaException as error:
            why = _refusal(error).replace(self._token, "***")  # a server may echo the request
            kind = _TransientError if error.status_code in TRANSIENT else GrafanaError
        except (AttributeError, KeyError, TypeError, ValueError):  # a response that is not Grafana's
            why = "it responds, but not as Grafana does; check the address, and its path if it is behind a proxy"
            kind = GrafanaError
        except RequestException as error:
            why = f"the connection failed ({type(error).__name__}); is Grafana running there?"
            kind = _TransientError
        raise kind(f"could not {what} at {self.url}: {why}") from None


def found(get: Callable[[str], Any], uid: str) -> Any:
    """The result of `get`, or None if Grafana reports that the object does not exist.

    Raises:
        GrafanaException: Any other failure, including a 404 response that is not Grafana's own.
    """
    try:
        return get(uid)
    except GrafanaException as error:
        if error.status_code == NOT_FOUND and isinstance(error.response, dict):
            return None
        raise


class _TransientError(GrafanaError):
    """A transient fault."""


_FIXES = {
    400: "Grafana rejects the request as invalid",
    401: "the token is not valid; set GRAFANA_TOKEN to that of a service account of this Grafana",
    403: "the token lacks the permission; give its service account the role Admin, or Editor and datasources:write",
    404: "not found; check the address, and its path if Grafana is behind a proxy",
    409: "an object of the same name exists; rename or remove it in Grafana",
    412: "it is owned by another tool or was changed; remove it in Grafana and push again",
    429: "too many requests; try again later",
}


def _refusal(error: GrafanaException) -> str:
    fix = _FIXES.get(error.status_code, "the server failed; see its log, then push again")
    message = error.response.get("message", "") if isinstance(error.response, dict) else ""
    return f"{error.status_code}, {fix}" + (f" (Grafana says: {str(message)[:200]})" if message else "")
