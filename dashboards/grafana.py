"""A Grafana server over HTTP: the one place that knows its client, its errors and when to try again."""

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
PASSING = frozenset({429, 500, 502, 503, 504})
"""Statuses that a busy or restarting server answers with: worth another try."""

Done = TypeVar("Done")


class GrafanaError(Exception):
    """Grafana cannot be reached or refuses; the message says what was tried, why it failed and what to do."""


class Grafana:
    """One Grafana server, until it is closed: use it in a `with` statement.

    Args:
        url: Where it is, `http://host:3000`, with its path if it has one.
        token: Token of a service account. It is sent to that address only, and is in no message.
        timeout_s: Seconds without an answer after which a request has failed.
        pauses_s: Seconds to wait before each new try of a step that a passing fault ended.

    Raises:
        GrafanaError: The address is not one, or carries a password; the token is empty or cannot be sent.
    """

    def __init__(
        self, url: str, token: str, *, timeout_s: float = TIMEOUT_S, pauses_s: Sequence[float] = PAUSES_S
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise GrafanaError(f"--grafana: {url!r} is no address of a Grafana; write it as http://host:3000")
        if parts.username or parts.password:
            raise GrafanaError("--grafana: leave user and password out of the address; set GRAFANA_TOKEN instead")
        if not token or not token.isascii() or not token.isprintable():
            raise GrafanaError("GRAFANA_TOKEN: is empty or no token; set it to the token of a service account")
        self.url = url.rstrip("/")
        self._token = token
        self._timeout_s = timeout_s
        self._pauses_s = pauses_s
        connect: Any = GrafanaApi  # the client carries no types
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
        """Do one step, and again after a fault that may pass.

        Args:
            what: The step, in words that follow "could not".
            do: Takes the client. It may run several times, so it must look before it creates.

        Raises:
            GrafanaError: The step failed for good.
        """
        for pause in self._pauses_s:
            try:
                return self._try(what, do)
            except _PassingError:
                time.sleep(pause)
        return self._try(what, do)

    def _try(self, what: str, do: Callable[[Any], Done]) -> Done:
        try:
            return do(self._api)
        except GrafanaTimeoutError:
            why = f"no answer within {self._timeout_s:g} s; is it overloaded, or is the address another service's?"
            kind: type[GrafanaError] = _PassingError
        except GrafanaException as error:
            why = _refusal(error).replace(self._token, "***")  # a server may say what it was sent
            kind = _PassingError if error.status_code in PASSING else GrafanaError
        except (AttributeError, KeyError, TypeError, ValueError):  # an answer of another shape than Grafana's
            why = "it answers, but not as Grafana does; check the address, and its path if it is behind a proxy"
            kind = GrafanaError
        except RequestException as error:
            why = f"the connection failed ({type(error).__name__}); is Grafana running there?"
            kind = _PassingError
        raise kind(f"could not {what} at {self.url}: {why}") from None


def found(get: Callable[[str], Any], uid: str) -> Any:
    """What `get` fetches, or None if Grafana says that it has no such thing.

    Raises:
        GrafanaException: Anything else went wrong; an answer that is not Grafana's own is among that.
    """
    try:
        return get(uid)
    except GrafanaException as error:
        if error.status_code == NOT_FOUND and isinstance(error.response, dict):
            return None
        raise


class _PassingError(GrafanaError):
    """A fault that may be gone in a moment."""


_FIXES = {
    400: "Grafana finds the request wrong",
    401: "the token is not valid; set GRAFANA_TOKEN to that of a service account of this Grafana",
    403: "the token may not do this; give its service account the role Admin, or Editor and datasources:write",
    404: "there is no such thing; check the address, and its path if Grafana is behind a proxy",
    409: "something of the same name is there already; rename or remove it in Grafana",
    412: "somebody else owns or has changed it; remove it in Grafana and push again",
    429: "too many requests; try again later",
}


def _refusal(error: GrafanaException) -> str:
    fix = _FIXES.get(error.status_code, "the server failed; see its log, then push again")
    message = error.response.get("message", "") if isinstance(error.response, dict) else ""
    return f"{error.status_code}, {fix}" + (f" (Grafana says: {str(message)[:200]})" if message else "")
