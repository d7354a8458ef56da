"""The lab's hosts behave as hosts, and its links match the profile."""

# ruff: noqa: S108 - a host's /tmp is its own

import sys
from pathlib import Path

import pytest

from netem import NetemError, preset, shape
from netem.lab import DATA_PORTS, Lab, attached, labs
from tests.helpers.labs import CLEAN, TOLERANCE, endpoints, out, profile, python, sent_bytes
from tests.helpers.waiting import PATIENCE_S, eventually

pytestmark = pytest.mark.netns


def test_every_host_has_its_own_name_address_tmp_memory_and_processes(lab: Lab) -> None:
    for host in lab.hosts:
        out(lab, host.name, "sh", "-c", "echo $0 >/tmp/mine; echo $0 >/dev/shm/mine", host.name)
    for host in lab.hosts:
        assert out(lab, host.name, "hostname") == f"mpcb-{lab.id}-{host.name}"
        assert host.address in out(lab, host.name, "ip", "-o", "addr", "show", "dev", "eth0")
        assert out(lab, host.name, "cat", "/tmp/mine", "/dev/shm/mine").split() == [host.name] * 2
        processes = out(lab, host.name, "ps", "-e", "-o", "args=").splitlines()
        assert 3 <= len(processes) <= 5
    assert not Path("/tmp/mine").exists()


def test_a_host_reaps_orphaned_processes(lab: Lab) -> None:
    out(lab, "h0", "sh", "-c", "(sleep 0.1 &)")
    assert eventually(lambda: "sleep" not in out(lab, "h0", "ps", "-e", "-o", "comm="))


def test_the_environment_exit_status_and_folder_of_a_command_arrive(lab: Lab) -> None:
    done = lab.run("h1", ["sh", "-c", "pwd; exit 7"], capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == (str(Path.cwd()), 7)
    with pytest.raises(NetemError, match=r"h9.*h0, h1, h2"):
        lab.run("h9", ["true"])


def test_folders_in_tmp_are_visible_on_request(tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    shown.mkdir()
    with Lab.up(2, keep=[shown]) as made:
        made.run("h0", ["sh", "-c", 'echo result > "$0/file"', str(shown)])
        assert out(made, "h0", "ls", str(tmp_path)) == "shown"
    assert (shown / "file").read_text() == "result\n"


def test_a_folder_of_which_each_host_has_its_own_cannot_be_seen_there() -> None:
    """Otherwise all hosts would share it, and Ray's nodes would meet in it."""
    with pytest.raises(NetemError, match=r"has a /tmp of its own.*move it to a folder below /tmp"):
        Lab.up(2, keep=[Path("/tmp")])


def test_a_lab_is_made_from_a_folder_of_which_each_host_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/tmp")
    with Lab.up(2) as made:
        out(made, "h0", "touch", "/tmp/mine")
        assert "mine" not in out(made, "h1", "ls", "/tmp")
    assert not Path("/tmp/mine").exists()


def test_a_process_on_a_host_finds_its_lab_although_the_state_lies_in_tmp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPCACHE_BENCH_STATE", str(tmp_path))
    with Lab.up(2) as made:
        assert out(made, "h1", sys.executable, "-c", "from netem.lab import attached; print(attached().id)") == made.id


@pytest.mark.parametrize("name", ["wan", "hpmpc-cman", "none"])
def test_links_by_relay_match_the_profile(lab: Lab, name: str) -> None:
    with shape(preset(name), endpoints(lab), site=lab) as network:
        measured = network.measure(0.2, tolerance=TOLERANCE)
        assert network.backend == ("none" if name == "none" else "relay")
        assert len(measured) == 6
        assert network.deviations(measured, TOLERANCE) == ()
        for (src, dst), got in measured.items():
            # a relay that was busy when its own delay was measured may subtract half a millisecond, and a reader that
            # was asleep at the end of the warm-up counts what had arrived meanwhile
            assert got.rtt_ms >= network.profile.rtt_ms(src, dst) * 0.9 - 0.5
            assert got.rate_mbit <= (network.profile.link(src, dst).rate_mbit or float("inf")) * 1.2


def test_asymmetry_and_jitter_and_loss_arrive(lab: Lab) -> None:
    asked = profile(
        rate_mbit=100,
        delay_ms=10,
        pairs={"client>server": {"jitter_ms": 2, "loss_pct": 1}, "server>client": {"delay_ms": 30}},
    )
    with shape(asked, endpoints(lab), site=lab) as network:
        measured = network.measure(0.2, tolerance=TOLERANCE)
        assert measured["client", "server"].rtt_ms == pytest.approx(40, abs=8)
        assert measured["client", "dealer"].rtt_ms == pytest.approx(20, abs=8)
        assert measured["client", "server"].rtt_p99_ms - measured["client", "server"].rtt_ms > 1
        lost = {(flow["src"], flow["dst"]): flow["lost"] for flow in lab.call("hub", "relay", {})["flows"]}
    client, server, dealer = (host.address for host in lab.hosts)
    assert lost[client, server] > 0
    assert lost[server, client] == lost[client, dealer] == 0


def test_only_party_ports_are_shaped(lab: Lab) -> None:
    with shape(preset("wan"), endpoints(lab), site=lab):
        host, port = lab.call("h1", "probe_open", {"host": lab.hosts[1].address})["address"]  # as Ray would
        assert lab.call("h0", "rtt", {"address": (host, port)})["rtt_ms"] < 20
        lab.call("h1", "probe_close", {"port": port})


def test_a_rate_alone_is_shaped_by_tc_and_every_host_is_as_before_afterwards(lab: Lab) -> None:
    before = [out(lab, host.name, "tc", "qdisc") for host in lab.hosts]
    asked = profile(rate_mbit=300, pairs={"client>server": {"rate_mbit": 50}})
    with shape(asked, endpoints(lab), site=lab, backend="tc") as network:
        measured = network.measure(0.2, tolerance=TOLERANCE)
        assert measured["client", "server"].rate_mbit == pytest.approx(48, rel=0.4)
        assert measured["server", "client"].rate_mbit == pytest.approx(280, rel=0.4)
        assert out(lab, "h0", "sh", "-c", "ls /tmp/mpcache-bench/leases | wc -l") == "1"
        assert "still in use" in python(lab, "h0", CLEAN).stdout
    assert [out(lab, host.name, "tc", "qdisc") for host in lab.hosts] == before
    assert out(lab, "h0", "ls", "/tmp/mpcache-bench/leases") == ""


def test_a_foreign_qdisc_is_refused_by_name_and_the_other_hosts_are_as_before(lab: Lab) -> None:
    out(lab, "h1", "tc", "qdisc", "add", "dev", "eth0", "root", "handle", "7:", "pfifo", "limit", "9")
    try:
        with (
            pytest.raises(NetemError, match=r"eth0 has the root qdisc pfifo 7:, not ours"),
            shape(profile(rate_mbit=300), endpoints(lab), site=lab, backend="tc"),
        ):
            pass
        assert "pfifo 7:" in out(lab, "h1", "tc", "qdisc", "show", "dev", "eth0")
        assert "htb" not in out(lab, "h0", "tc", "qdisc", "show", "dev", "eth0")
    finally:
        out(lab, "h1", "tc", "qdisc", "del", "dev", "eth0", "root")


def test_a_missing_netem_is_named_as_the_reason(lab: Lab) -> None:
    why = lab.call("h0", "capability", {})["delay"]
    if not why:
        pytest.skip("this kernel has netem")
    with (
        pytest.raises(NetemError, match=r"tc: 10.77.0.10: kernel .* refuses netem"),
        shape(preset("wan"), endpoints(lab), site=lab, backend="tc"),
    ):
        pass


def test_two_roles_on_one_host_are_refused_by_name(lab: Lab) -> None:
    shared = {"client": (lab.hosts[0].address, 7000), "dealer": (lab.hosts[0].address, 7001)}
    with (
        pytest.raises(NetemError, match=r"client and dealer share the host 10\.77\.0\.10"),
        shape(preset("wan"), shared, site=lab),
    ):
        pass


def test_a_second_run_in_the_same_lab_is_refused_and_the_first_continues(lab: Lab) -> None:
    other = next(found for found in labs() if found.id == lab.id)
    two = dict(list(endpoints(lab).items())[:2])
    with shape(preset("wan"), two, site=lab) as network:
        with pytest.raises(NetemError, match="shaped already"), shape(preset("lan"), endpoints(lab, 7100), site=other):
            pass
        other.disconnect()
        assert network.deviations(network.measure(0.1, tolerance=TOLERANCE), TOLERANCE) == ()


def test_the_relay_counts_what_the_kernel_counts(lab: Lab) -> None:
    client = lab.hosts[0].address
    with shape(preset("lan"), endpoints(lab), site=lab) as network:
        before = sent_bytes(lab, "h0")
        network.measure(0.1)
        after = sent_bytes(lab, "h0")
        flows = lab.call("hub", "relay", {})["flows"]
    relayed = sum(flow["bytes"] for flow in flows if flow["src"] == client)
    assert after - before == pytest.approx(relayed, rel=0.05)


def test_two_labs_with_the_same_addresses_are_isolated(lab: Lab) -> None:
    with Lab.up(2) as other:
        assert other.hosts[0].address == lab.hosts[0].address
        assert {lab.id, other.id} <= {found.id for found in labs()}
        out(other, "h0", "touch", "/tmp/other")
        assert "other" not in out(lab, "h0", "ls", "/tmp")
        with (
            shape(preset("wan"), endpoints(other), site=other),
            shape(preset("none"), endpoints(lab), site=lab) as unshaped,
        ):
            measured = unshaped.measure(0.05)
            assert measured
            assert all(got.rtt_ms < 20 for got in measured.values())
    assert other.id not in {found.id for found in labs()}


def test_a_lab_with_its_own_network_shapes_its_data_ports() -> None:
    with Lab.up(2, network=profile(delay_ms=15)) as made:
        assert (made.network, made.backend) == ("custom", "relay")
        server = (
            "import socket\n"
            f"with socket.create_server(('{made.hosts[1].address}', {DATA_PORTS.start + 5})) as s:\n"
            "    c, _ = s.accept(); c.sendall(c.recv(1)); c.recv(1)"
        )
        with made.popen("h1", [sys.executable, "-c", server]) as serving:
            client = (
                "import socket, time\n"
                f"peer = {made.hosts[1].address!r}, {DATA_PORTS.start + 5}\n"
                "while True:\n  try: c = socket.create_connection(peer)\n"
                "  except ConnectionRefusedError: time.sleep(0.05)\n  else: break\n"
                "t = time.perf_counter(); c.sendall(b'x'); c.recv(1); print(time.perf_counter() - t)"
            )
            assert 0.025 < float(python(made, "h0", client).stdout) < 0.2
            assert serving.wait(PATIENCE_S) == 0


def test_a_process_on_a_host_finds_its_lab(lab: Lab) -> None:
    done = python(lab, "h1", "from netem.lab import attached; print(attached().id, len(attached().hosts))")
    assert done.stdout.split() == [lab.id, "3"]
    assert attached() is None


@pytest.mark.parametrize("hosts", [1, 65])
def test_an_invalid_number_of_hosts_is_refused(hosts: int) -> None:
    with pytest.raises(NetemError, match=f"hosts: {hosts} is not allowed; give 2 to 64"):
        Lab.up(hosts)
