"""The tc commands, as a golden file shows them and as every profile must have them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netem import Link, NetworkProfile, preset
from netem.dryrun import by_hand
from netem.flows import Flow, Ports, queue_bytes, queue_packets
from netem.tc_plan import commands, removal

GOLDEN = Path(__file__).parent / "golden"
HOSTS = (("192.0.2.1", 7001), ("192.0.2.2", 7002), ("192.0.2.3", 7003))
PROFILES = {
    "wan": preset("wan"),
    "hpmpc-cman": preset("hpmpc-cman"),
    "every-value": NetworkProfile.from_mapping(
        {"rate_mbit": 0.5, "delay_ms": 40.25, "jitter_ms": 2, "loss_pct": 0.1}, "every-value"
    ),
    "rate-only-one-way": NetworkProfile("one-way", pairs={("0", "1"): Link(rate_mbit=3000)}),
    "delay-only": NetworkProfile.from_mapping({"delay_ms": 10}, "delay-only"),
}


def as_text(profile: NetworkProfile) -> str:
    plans = by_hand(profile, HOSTS, "eth0")
    return "".join(f"# on {host}\n" + "".join(" ".join(line) + "\n" for line in plan) for host, plan in plans.items())


@pytest.mark.parametrize("name", PROFILES)
def test_the_commands_are_those_of_the_golden_file(name: str) -> None:
    assert as_text(PROFILES[name]) == (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")


links = st.builds(
    Link,
    rate_mbit=st.none() | st.floats(0.1, 400_000),
    delay_ms=st.floats(1, 2_000) | st.just(0.0),
    loss_pct=st.floats(0, 50),
)


@given(st.lists(links, min_size=1, max_size=10))
def test_every_link_has_a_class_then_its_child_then_its_filters(some: list[Link]) -> None:
    flows = [Flow("192.0.2.1", f"192.0.2.{10 + i}", (Ports(7000),), link) for i, link in enumerate(some)]
    root, *rest = commands("eth0", 0x1000, flows)
    assert root == ("tc", "qdisc", "add", "dev", "eth0", "root", "handle", "1000:", "htb", "default", "0")
    for number, flow in enumerate(flows, 1):
        of_class, child, *filters = rest[: 2 + 2]
        rest = rest[4:]
        assert of_class[of_class.index("classid") + 1] == f"1000:{number:x}"
        assert child[child.index("parent") + 1] == f"1000:{number:x}"
        assert child[child.index("handle") + 1] == f"{0x1000 + number:x}:"
        assert {line[-1] for line in filters} == {f"1000:{number:x}"}
        assert all(f"{flow.dst}/32" in line for line in filters)
        assert [end for line in filters for end in ("sport", "dport") if end in line] == ["sport", "dport"]
        # A value that is not stated keeps the kernel's previous one.
        assert {"rate", "ceil", "burst", "cburst"} <= set(of_class)
        wanted = {"delay", "loss", "limit"} if "netem" in child else {"limit"}
        assert wanted <= set(child)
    assert rest == []


@given(links)
def test_the_queue_holds_what_is_under_way_and_200_ms_more(link: Link) -> None:
    rate = (link.rate_mbit or 10_000) * 1e6 / 8
    assert queue_bytes(link) >= rate * (link.delay_ms / 1e3 + 0.2) - 1
    assert queue_packets(link) * 1000 >= queue_bytes(link)


def test_a_block_of_ports_is_one_filter() -> None:
    flow = Flow("192.0.2.1", "192.0.2.2", (Ports.block(7168, 64),), Link(delay_ms=1))
    filters = [line for line in commands("eth0", 0x1000, [flow]) if "filter" in line]
    assert len(filters) == 2
    assert filters[0][-4:-2] == ("7168", "0xffc0")
    assert list(flow.ports[0].all) == list(range(7168, 7232))


@pytest.mark.parametrize(("first", "count"), [(7168, 3), (7169, 2), (0, 1), (7168, 0), (65536, 1)])
def test_an_invalid_block_of_ports_is_refused(first: int, count: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        Ports.block(first, count)


def test_more_links_than_handles_are_refused() -> None:
    flows = [Flow("192.0.2.1", f"198.51.100.{i}", (Ports(7000),), Link(delay_ms=1)) for i in range(64)]
    with pytest.raises(ValueError, match="64 flows"):
        commands("eth0", 0x1000, flows)


def test_the_removal_names_our_handle_so_that_no_other_root_is_removed() -> None:
    assert removal("eth0", 0x1000) == ("tc", "qdisc", "del", "dev", "eth0", "root", "handle", "1000:")
