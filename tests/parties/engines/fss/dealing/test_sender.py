"""The thread that sends a party the dealer's frames."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from parties.engines.fss.dealing.sender import END, WITHOUT_LIMIT, Sender, Stopped


def test_nothing_follows_the_last_frame_although_a_dry_run_is_still_ahead() -> None:
    sent: list[bytes] = []
    link: Any = SimpleNamespace(peer="server", send=lambda frame, _: sent.append(frame))
    account: Any = None
    sender, wanted = Sender(link, account), threading.Event()
    sender.credit(WITHOUT_LIMIT)
    sender.put(b"randomness", wanted)
    sender.finish()
    with pytest.raises(Stopped):
        sender.put(b"of a token that is not decoded", wanted)
    assert sent == [b"randomness", END]
