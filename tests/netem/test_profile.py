"""Profiles describe links, and refuse impossible values."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netem import Link, NetworkProfile, ProfileError, preset, presets
from netem.profile import Pair

links = st.builds(
    Link,
    rate_mbit=st.none() | st.floats(0.1, 400_000),
    delay_ms=st.floats(100, 2_000),
    jitter_ms=st.floats(0, 100),
    loss_pct=st.floats(0, 50),
)
names = st.sampled_from(["client", "server", "dealer"])
pairs = st.tuples(names, names).filter(lambda pair: pair[0] != pair[1])


@given(links, st.dictionaries(pairs, links))
def test_a_profile_survives_being_written_to_a_file_and_read_back(default: Link, overrides: dict[Pair, Link]) -> None:
    profile = NetworkProfile("mine", default, overrides)
    again = NetworkProfile.from_mapping(profile.to_mapping())
    assert (again.name, again.default, again.pairs) == ("mine", default, overrides)


def test_a_pair_takes_precedence_in_its_direction_only_and_inherits_the_rest() -> None:
    profile = NetworkProfile.from_mapping(
        {"rate_mbit": 400, "delay_ms": 20, "pairs": {"client>server": {"rate_mbit": 50}}}
    )
    assert profile.link("client", "server") == Link(rate_mbit=50, delay_ms=20)
    assert profile.link("server", "client") == Link(rate_mbit=400, delay_ms=20)


def test_round_trip_adds_the_delays_of_both_directions() -> None:
    profile = NetworkProfile.from_mapping({"delay_ms": 5, "pairs": {"a > b": {"delay_ms": 30}}})
    assert profile.rtt_ms("a", "b") == profile.rtt_ms("b", "a") == 35


@pytest.mark.parametrize(
    ("given", "key", "allowed"),
    [
        ({"rate_mbit": 0}, "rate_mbit", "0.1"),
        ({"rate_mbit": "400mbit"}, "rate_mbit", "number"),
        ({"rate_mbit": True}, "rate_mbit", "number"),
        ({"delay_ms": -1}, "delay_ms", "0 to 2000"),
        ({"delay_ms": math.nan}, "delay_ms", "number"),
        ({"delay_ms": math.inf}, "delay_ms", "number"),
        ({"delay_ms": None}, "delay_ms", "number"),
        ({"delay_ms": 1, "jitter_ms": 2}, "jitter_ms", "at most delay_ms"),
        ({"loss_pct": 51}, "loss_pct", "0 to 50"),
        ({"latency": 3}, "latency", "delay_ms"),
        ({"name": 3}, "name", "word"),
        ({"pairs": 3}, "pairs", "mapping"),
        ({"pairs": {"client-server": {}}}, "pairs", "client>server"),
        ({"pairs": {"client>client": {}}}, "pairs", "two different names"),
        ({"pairs": {"a>b>c": {}}}, "pairs", "client>server"),
        ({"pairs": {"a>b": 3}}, "pairs.a>b", "mapping"),
        ({"pairs": {"a>b": {"delay": 3}}}, "pairs.a>b.delay", "delay_ms"),
        ({"pairs": {"a>b": {"rate_mbit": -3}}}, "pairs.a>b.rate_mbit", "0.1"),
        ({"pairs": {"a>b": {"jitter_ms": 3}}}, "pairs.a>b.jitter_ms", "at most delay_ms"),
    ],
)
def test_a_bad_value_is_named_with_its_key_and_the_allowed_range(given: dict[str, Any], key: str, allowed: str) -> None:
    with pytest.raises(ProfileError) as caught:
        NetworkProfile.from_mapping(given)
    assert caught.value.key == key
    assert allowed in str(caught.value)
    assert str(caught.value).startswith(key)


def test_a_pair_of_unknown_names_is_refused_when_the_names_are_known() -> None:
    profile = NetworkProfile.from_mapping({"pairs": {"client>sever": {"delay_ms": 3}}})
    with pytest.raises(ProfileError, match=r"sever.*client, server"):
        profile.named(("client", "server"))


@pytest.mark.parametrize("profile", presets(), ids=lambda profile: profile.name)
def test_every_preset_names_its_source_and_fits_three_parties(profile: NetworkProfile) -> None:
    assert profile.source
    named = profile.named(("client", "server", "dealer"))
    for src, dst in [("client", "server"), ("dealer", "client")]:
        assert named.link(src, dst).shaped == (profile.name != "none")


def test_the_presets_of_the_literature_have_its_numbers() -> None:
    expected = {"lan": (3000, 0.8), "wan": (400, 40), "wan-1g-10ms": (1000, 10), "puma": (5000, 1)}
    for name, (rate, rtt) in expected.items():
        assert preset(name).link("a", "b").rate_mbit == rate
        assert preset(name).rtt_ms("a", "b") == pytest.approx(rtt)


def test_a_measured_matrix_is_asymmetric_and_keyed_by_the_order_of_the_parties() -> None:
    profile = preset("hpmpc-wan1").named(("client", "server", "dealer"))
    assert profile.link("client", "server") == Link(rate_mbit=143, delay_ms=192.586 / 2)
    assert profile.link("server", "client") == Link(rate_mbit=149, delay_ms=186.628 / 2)
    assert profile.link("dealer", "server") == Link(rate_mbit=866, delay_ms=34.772 / 2)


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(ProfileError, match=r"wann.*lan, wan"):
        preset("wann")
