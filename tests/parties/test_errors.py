import pickle

import pytest

from parties import errors
from parties.errors import PartyError

STATUSES = {
    "ok", "out_of_range", "incorrect", "unsupported", "party_died", "timeout", "oom",
    "shaping_failed", "shaping_drifted", "config_error", "interrupted",
}  # fmt: skip

EXAMPLES = [
    (errors.PeerLost("server", "softmax", 10, 20), "party_died", ["server", "softmax", "10 bytes", "20"]),
    (errors.PeerTimeout("dealer", "offline.triples", 1, 2, 2.5), "timeout", ["dealer", "offline.triples", "2.5 s"]),
    (errors.OutOfStep("client", "topk", "frame 3", "frame 4"), "party_died", ["client", "topk", "frame 3", "frame 4"]),
    (
        errors.CorruptFrame("server", "norm", 10, 20, 7, "payload"),
        "party_died",
        ["payload of frame 7", "server", "norm", "10 bytes", "20"],
    ),
    (errors.PeersMissing({"dealer": "no answer"}, 60.0), "timeout", ["dealer", "60 s", "no answer"]),
    (errors.HelloRefused("client", "it is in another session"), "config_error", ["client", "another session"]),
    (
        errors.PeerUnproven("dealer", "its certificate is another role's"),
        "config_error",
        ["TLS", "dealer", "another role"],
    ),
    (errors.AddressInUse("127.0.0.1", 80), "config_error", ["127.0.0.1", "80", "port 0"]),
    (errors.AddressUnusable("192.0.2.1", 80, "no such address"), "config_error", ["192.0.2.1", "80", "no such"]),
    (errors.ModelError("m is no model; name one"), "config_error", ["m is no model"]),
    (errors.PromptError("too short"), "config_error", ["too short"]),
    (errors.Unsupported("plain has no dealer"), "unsupported", ["no dealer"]),
    (
        errors.OutOfRange("fss", "attention score of layer 1 is 981.7, outside -200 to 54", {"layer": 1}),
        "out_of_range",
        ["layer 1", "981.7", "fss", "mpcache-bench calibrate MODEL"],
    ),
    (errors.WorkerFailed("run", "no such variable"), "party_died", ["run", "no such variable"]),
    (errors.NotEnoughMemory("needs 10 GiB"), "oom", ["10 GiB"]),
]


@pytest.mark.parametrize(("error", "status", "words"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_an_error_has_its_status_and_message(error: PartyError, status: str, words: list[str]) -> None:
    assert error.status == status
    assert all(word in str(error) for word in words), str(error)


@pytest.mark.parametrize("error", [error for error, _, _ in EXAMPLES], ids=lambda error: type(error).__name__)
def test_an_error_survives_serialisation(error: PartyError) -> None:
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_every_error_has_an_example_and_a_status_of_the_record() -> None:
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, PartyError)}
    public = {kind for kind in kinds if not kind.__name__.startswith("_")}
    assert public - {PartyError} == {type(error) for error, _, _ in EXAMPLES}
    assert {kind.status for kind in kinds} <= STATUSES


def test_crypten_would_not_swallow_them() -> None:
    assert not issubclass(PartyError, RuntimeError)
