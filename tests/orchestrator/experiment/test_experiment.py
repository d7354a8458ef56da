import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from netem import Link
from orchestrator.experiment.cells import expand
from orchestrator.experiment.experiment import Experiment, load_experiment
from orchestrator.experiment.problems import ConfigError, Problem, problems_of
from orchestrator.quality.study import load_study
from orchestrator.run.runner import job_of
from parties.messages import read_messages
from tests.helpers import samples
from tests.helpers.paths import ROOT

GOOD: dict[str, Any] = {
    "name": "quickstart",
    "model": "random:tiny-llama",
    "prompt": {"random_tokens": True},
    "engines": ["crypten"],
    "policies": ["full", {"name": "mpcache", "select": 0.3}],
    "seq_lens": [128, 256],
}


def load(folder: Path, **changes: Any) -> Experiment:
    path = folder / "experiment.yaml"
    values = {key: value for key, value in (GOOD | changes).items() if value is not ...}
    path.write_text(yaml.safe_dump(values))
    return load_experiment(path)


def problems(folder: Path, **changes: Any) -> dict[str, Problem]:
    with pytest.raises(ConfigError) as caught:
        load(folder, **changes)
    assert caught.value.status == "config_error"
    return {problem.path: problem for problem in caught.value.problems}


def test_a_file_becomes_an_experiment_with_all_defaults(tmp_path: Path) -> None:
    experiment = load(tmp_path)
    assert experiment.seq_lens == (128, 256)
    assert [engine.name for engine in experiment.engines] == ["crypten"]
    assert (experiment.new_tokens, experiment.repeats, experiment.seed) == (2, 1, 0)
    assert (experiment.prefill, experiment.argmax, experiment.gpu) == ("shared", "private", False)
    assert [network.name for network in experiment.networks] == ["none"]
    assert experiment.policies[1].parameters["select"] == 0.3
    assert experiment.policies[1].parameters["static_keep"] == 0.4  # a default, filled in


def test_all_errors_are_reported_at_once_with_path_value_range_and_fix(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        engines=["crypten", "cryptn"],
        policies=["full", {"name": "mpcache", "static_keep": 40, "coarze": 1, "alpha": "x"}, "mpcach"],
        seq_lens=[128, 0],
        repeats=0,
        newtokens=4,
        timeout=5,
        prompt={"text_fil": "a.txt"},
        networks=["wna", {"delay": 5, "rate_mbit": "fast"}],
    )
    assert set(found) == {
        "engines[1].name", "policies[1].static_keep", "policies[1].coarze", "policies[1].alpha", "policies[2].name",
        "seq_lens[1]", "repeats", "newtokens", "timeout", "prompt.text_fil", "networks[0]", "networks[1].delay",
        "networks[1].rate_mbit",
    }  # fmt: skip
    assert found["policies[1].static_keep"].value == 40
    assert "(0, 1]" in found["policies[1].static_keep"].allowed
    assert found["repeats"].allowed == "whole number from 1"
    assert str(found["newtokens"]).startswith("newtokens: not a key; allowed: keys name, model, ")


@pytest.mark.parametrize(
    ("changes", "path", "fix"),
    [
        ({"newtokens": 4}, "newtokens", "new_tokens"),
        ({"timeout": 5}, "timeout", "timeout_s"),
        ({"engines": ["cryptn"]}, "engines[0].name", "crypten"),
        ({"policies": ["mpcach"]}, "policies[0].name", "mpcache"),
        ({"policies": [{"name": "mpcache", "selct": 1}]}, "policies[0].selct", "select"),
        ({"networks": ["lann"]}, "networks[0]", "lan"),
        ({"networks": ["wna"]}, "networks[0]", "wan"),
        ({"networks": ["LAN"]}, "networks[0]", "lan"),
        ({"networks": ["Lan+TLS"]}, "networks[0]", "lan+tls"),
        ({"networks": ["wan_1g_10ms"]}, "networks[0]", "wan-1g-10ms"),
        ({"networks": ["wan1"]}, "networks[0]", "hpmpc-wan1"),
        ({"networks": ["lan+ssl"]}, "networks[0]", "lan+tls"),
        ({"networks": [{"rtt_ms": 40}]}, "networks[0].rtt_ms", "delay_ms: 20, half the round trip"),
        ({"networks": [{"RTT": "40 ms"}]}, "networks[0].RTT", "delay_ms: 20, half the round trip"),
        ({"networks": [{"rtt": 40}]}, "networks[0].rtt", "delay_ms, one way, in milliseconds, so half the round trip"),
        ({"networks": [{"ping_ms": 40}]}, "networks[0].ping_ms", "delay_ms: 20, half the round trip"),
        ({"networks": [{"delay": 5}]}, "networks[0].delay", "delay_ms, one way, in milliseconds"),
        ({"networks": [{"delays": 5}]}, "networks[0].delays", "delay_ms, one way, in milliseconds"),
        ({"networks": [{"delay_s": 0.02}]}, "networks[0].delay_s", "delay_ms: 20"),
        ({"networks": [{"delay_ms": "20ms"}]}, "networks[0].delay_ms", "delay_ms: 20"),
        ({"networks": [{"latency_ms": 5}]}, "networks[0].latency_ms", "delay_ms: 5"),
        ({"networks": [{"bandwidth": 100}]}, "networks[0].bandwidth", "rate_mbit, in 10^6 bits per second"),
        ({"networks": [{"bandwidth": "1 Gbit/s"}]}, "networks[0].bandwidth", "rate_mbit: 1000"),
        ({"networks": [{"bandwidth_mbit": 100}]}, "networks[0].bandwidth_mbit", "rate_mbit: 100"),
        ({"networks": [{"rate_gbit": 1}]}, "networks[0].rate_gbit", "rate_mbit: 1000"),
        ({"networks": [{"rate_mbps": 100}]}, "networks[0].rate_mbps", "rate_mbit: 100"),
        ({"networks": [{"rateMbit": 100}]}, "networks[0].rateMbit", "rate_mbit: 100"),
        ({"networks": [{"loss": 1}]}, "networks[0].loss", "loss_pct, in percent"),
        ({"networks": [{"packet_loss_pct": 1}]}, "networks[0].packet_loss_pct", "loss_pct: 1"),
        ({"networks": [{"TLS": True}]}, "networks[0].TLS", "tls"),
        ({"policies": ["MPCache"]}, "policies[0].name", "mpcache"),
        ({"engines": ["FSS"]}, "engines[0].name", "fss"),
        ({"ports": {}}, "ports", "data_ports"),
        ({"policy": ["full"]}, "policy", "policies"),
        ({"Model": "x"}, "Model", "model"),
    ],
)
def test_a_misspelt_name_gets_the_closest_one_as_suggestion(
    tmp_path: Path, changes: dict[str, Any], path: str, fix: str
) -> None:
    assert problems(tmp_path, **changes)[path].fix == f"write {fix}"


@pytest.mark.parametrize(
    ("changes", "path", "allowed"),
    [
        ({"seq_lens": 64}, "seq_lens", "list of whole numbers from 2, at least one, each once"),
        ({"seq_lens": ["128"]}, "seq_lens[0]", "whole number from 2"),
        ({"timeout_s": "10m"}, "timeout_s", "number above 0 to 604800"),
        ({"prefill": "private"}, "prefill", "`shared` or `mpc`"),
        ({"shaping": "tcp"}, "shaping", "`auto`, `tc`, `relay` or `proxy`"),
        ({"name": "my sweep!"}, "name", "letters, digits, `.`, `_` and `-`, up to 64"),
        ({"prompt": "the text itself"}, "prompt", "mapping"),
        ({"networks": [{"name": "a", "mtu": 9000}]}, "networks[0].mtu",
         "only the keys rate_mbit, delay_ms, jitter_ms, loss_pct, pairs, name, tls"),
        ({"data_ports": {"clients": 7101}}, "data_ports.clients", "keys client, server, dealer, referee"),
        ({"data_ports": {"client": 0}}, "data_ports.client", "whole number from 1 to 65535"),
        ({"policies": [{"name": "mpcache", "select": "20%"}]}, "policies[0].select",
         "a number in [0, 1]: a share, not a percentage"),
        ({"policies": [{"name": "quest", "ahead": "yes"}]}, "policies[0].ahead", "`true` or `false`"),
    ],
)  # fmt: skip
def test_what_is_allowed_is_said_in_the_words_of_the_reference(
    tmp_path: Path, changes: dict[str, Any], path: str, allowed: str
) -> None:
    assert problems(tmp_path, **changes)[path].allowed == allowed


def test_a_required_key_that_is_misspelt_is_one_problem_and_one_that_is_missing_says_so(tmp_path: Path) -> None:
    found = problems(tmp_path, seq_lens=..., seq_len=[128], engines=..., motors=["fss"])
    assert set(found) == {"seq_len", "engines", "motors"}
    assert found["seq_len"].fix == "write seq_lens"
    assert str(found["engines"]).startswith("engines: missing; allowed: list of names or mappings, at least one")


@pytest.mark.parametrize("key", ["port", "store", "context", "include", "prompt_len", "shape_of_things", "rtt_ms"])
def test_an_unrelated_key_gets_no_suggestion(tmp_path: Path, key: str) -> None:
    assert problems(tmp_path, **{key: 1})[key].fix == "use one of the keys listed, or take it out"


@pytest.mark.parametrize(
    ("model", "fix"),
    [
        ("smollm-135m", "write smollm2-135m, or take another model"),
        ("random:tinyllama", "write random:tiny-llama, or take another model"),
        ("random:llama?layer=2", "correct the name, or take another model"),
        ("someone/else", "correct the name, or take another model"),
    ],
)
def test_a_model_that_is_misspelt_gets_the_one_that_was_meant(tmp_path: Path, model: str, fix: str) -> None:
    assert problems(tmp_path, model=model)["model"].fix == fix


def test_an_unknown_value_of_a_link_gets_no_suggestion(tmp_path: Path) -> None:
    found = problems(tmp_path, networks=[{"name": "a", "mtu": 9000, "duplex": True, "delay_ms": 20_000}])
    assert {problem.fix for problem in found.values()} == {"correct the value, or take it out"}


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"name": "a b"}, "name"),
        ({"name": ...}, "name"),
        ({"model": 5}, "model"),
        ({"model": "random:no-such-shape"}, "model"),
        ({"model": "/no/such/model.gguf"}, "model"),
        ({"prompt": {}}, "prompt"),
        ({"prompt": {"text_file": "missing.txt"}}, "prompt.text_file"),
        ({"prompt": {"text_file": "."}}, "prompt.text_file"),
        ({"engines": []}, "engines"),
        ({"engines": "crypten"}, "engines"),
        ({"engines": ["crypten", "crypten"]}, "engines[1]"),
        ({"policies": ["mpcache", {"name": "mpcache", "select": 0.2}]}, "policies[1]"),
        ({"policies": [{"select": 0.2}]}, "policies[0]"),
        ({"policies": [{"name": ["mpcache"]}]}, "policies[0]"),
        ({"policies": [{"name": "mpcache", "fine_size": 16.5}]}, "policies[0].fine_size"),
        ({"policies": [{"name": "mpcache", "coarse_size": 40}]}, "policies[0].coarse_size"),
        ({"policies": [{"name": "mpcache", "static_keep": True}]}, "policies[0].static_keep"),
        ({"seq_lens": [1]}, "seq_lens[0]"),
        ({"seq_lens": ["128"]}, "seq_lens[0]"),
        ({"seq_lens": [128, 128]}, "seq_lens[1]"),
        ({"new_tokens": 1.5}, "new_tokens"),
        ({"new_tokens": True}, "new_tokens"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"timeout_s": float("nan")}, "timeout_s"),
        ({"cell_timeout_s": float("inf")}, "cell_timeout_s"),
        ({"argmax": "server"}, "argmax"),
        ({"prefill": "private"}, "prefill"),
        ({"gpu": "yes please"}, "gpu"),
        ({"seed": -1}, "seed"),
        ({"data_ports": {"client": 70000}}, "data_ports.client"),
        ({"data_ports": {"cleint": 7000}}, "data_ports.cleint"),
        ({"networks": [None]}, "networks[0]"),
        ({"networks": [{"name": "wan", "delay_ms": 1}]}, "networks[0].name"),
        ({"networks": [{"pairs": {"client>sever": {"delay_ms": 1}}}]}, "networks[0].pairs.client>sever"),
    ],
)
def test_bad_values_are_refused_where_they_stand(tmp_path: Path, changes: dict[str, Any], path: str) -> None:
    found = problems(tmp_path, **changes)
    assert list(found) == [path]
    assert found[path].allowed
    assert found[path].fix


def test_a_policy_that_cannot_apply_the_windows_of_a_model_is_refused(tmp_path: Path) -> None:
    windowed: dict[str, Any] = {"model": "random:tiny-mistral", "seq_lens": [20], "policies": ["full", "h2o"]}
    found = problems(tmp_path, **windowed)["policies[1]"]
    assert "the latest 8 tokens, and policy h2o does not keep all tokens in order" in found.reason
    assert load(tmp_path, **windowed | {"seq_lens": [6], "new_tokens": 2}).seq_lens == (6,)


def test_a_length_beyond_the_model_names_both(tmp_path: Path) -> None:
    found = problems(tmp_path, seq_lens=[128, 2047], new_tokens=2)["seq_lens[1]"]
    assert found.allowed == "at most 2046"
    assert "2048 positions" in found.reason
    assert "2047 prompt tokens and 2 new tokens need 2049" in found.reason
    assert load(tmp_path, seq_lens=[2046], new_tokens=2).seq_lens == (2046,)


def test_a_length_or_a_width_beyond_an_engine_names_it_unless_it_is_left_out(tmp_path: Path) -> None:
    long = {"model": "random:llama?positions=262144", "engines": ["plain", "fss"], "seq_lens": [30_000, 131_071]}
    found = problems(tmp_path, **long, new_tokens=2)["seq_lens[1]"]
    assert found.allowed == "at most 131070"
    assert "with engine fss, seq_len and new_tokens are 131,073 together" in found.reason
    assert "exclude engine fss" in found.fix
    assert load(tmp_path, **long, new_tokens=1).seq_lens == (30_000, 131_071)
    left_out = load(tmp_path, **long, new_tokens=2, exclude=[{"engine": "fss", "seq_len": 131_071}])
    assert left_out.seq_lens == (30_000, 131_071)
    wide = {"model": "random:gpt2?hidden=20480&heads=64&intermediate=64&vocab=64"}
    assert (
        "hidden size of 20,480, and it takes at most 16,384"
        in problems(tmp_path, **wide, engines=["fss"])["model"].reason
    )
    assert load(tmp_path, **wide, engines=["plain"]).model


def test_relative_paths_start_at_the_file_then_at_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, home = tmp_path / "work", tmp_path / "home"
    for folder in (work, home):
        folder.mkdir()
    (work / "prompt.txt").write_text("x")
    monkeypatch.chdir(work)
    assert load(home, prompt={"text_file": "prompt.txt"}).prompt.text_file == str(work / "prompt.txt")
    (home / "prompt.txt").write_text("x")
    assert load(home, prompt={"text_file": "prompt.txt"}).prompt.text_file == str(home / "prompt.txt")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "a mapping"),
        (b"- a\n- b\n", "a mapping"),
        (b"name: [unclosed\n", "line 2"),
        (b"name: a\nname: b\n", "'name' is given twice"),
        (b"policies: [{name: mpcache, select: 0.1, select: 0.2}]\n", "'select' is given twice"),
        (b"name: \xff\xfe\n", "not UTF-8"),
        (b"name: !!python/object/apply:os.system [ls]\n", "a tag (!…)"),
    ],
)
def test_a_file_that_is_not_an_experiment_is_refused_with_the_reason(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=re.escape(expected)) as caught:
        load_experiment(path)
    assert str(path) in str(caught.value)


DIARY = "Dear diary, my pin is 0417 and nobody may know"


@pytest.mark.parametrize(
    "prompt",
    [
        {"text_file": DIARY},
        {"text_file": DIARY * 30},
        {"text_file": f"{DIARY}\n{DIARY}"},
        {"text_file": f"{DIARY}\0"},
        {"text_file": "Liebes/Tagebuch 0417 diary"},
        {"text_file": "我的日记0417"},
        {"text_file": "~diary 0417"},
        {"text_file": [DIARY]},
        {"text_file": {DIARY: DIARY}},
        {"text_file": 417},
        {"text": DIARY},
        {DIARY: None},
        {"random_tokens": DIARY},
        {"random_tokens": False, "text_file": DIARY, DIARY: DIARY},
        DIARY,
        [DIARY],
        417,
    ],
)
def test_a_prompt_in_place_of_a_path_is_never_shown(tmp_path: Path, prompt: object) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, prompt=prompt)
    assert all(problem.path.startswith("prompt") for problem in caught.value.problems)
    for part in ("diary", "417", "日记"):
        assert part not in str(caught.value)
        assert part not in repr(caught.value.problems)


CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": DIARY}]


def test_messages_stay_in_the_file_that_they_are_written_in(tmp_path: Path) -> None:
    experiment = load(tmp_path, prompt={"messages": CHAT})
    assert experiment.prompt.messages == str(tmp_path / "experiment.yaml")
    assert [message.content for message in read_messages(tmp_path / "experiment.yaml")] == ["Be brief.", DIARY]
    for cell in expand(experiment):
        assert DIARY not in experiment.model_dump_json() + cell.model_dump_json() + str(job_of(cell, show_text=False))
    with pytest.raises(ValidationError) as caught:
        Experiment.model_validate(GOOD | {"prompt": {"messages": CHAT}})
    (problem,) = problems_of(caught.value, Experiment)
    assert problem.path == "prompt.messages"
    assert "write them to a file" in problem.fix
    assert DIARY not in str(problem)


def test_messages_in_a_file_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "chat.yaml").write_text(yaml.safe_dump(CHAT))
    assert load(tmp_path, prompt={"messages": "chat.yaml"}).prompt.messages == str(tmp_path / "chat.yaml")


@pytest.mark.parametrize(
    ("prompt", "path", "expected"),
    [
        ({"messages": []}, "prompt.messages", "does not hold a list of messages"),
        ({"messages": [{"role": "user"}]}, "prompt.messages", "message 1 is not a mapping of role and content"),
        (
            {"messages": [{"role": "user", "content": 417}]},
            "prompt.messages",
            "content of message 1 is not a text",
        ),
        ({"messages": "absent.yaml"}, "prompt.messages", "a file that exists"),
        ({"messages": DIARY}, "prompt.messages", "a path is expected"),
        ({"messages": {"role": DIARY}}, "prompt.messages", "not shown"),
        ({"messages": CHAT, "random_tokens": True}, "prompt", "exactly one of text_file, messages and random_tokens"),
        ({"special_tokens": True, "random_tokens": True}, "prompt.special_tokens", "false with random_tokens"),
    ],
)
def test_messages_that_cannot_be_used_are_never_shown(
    tmp_path: Path, prompt: dict[str, Any], path: str, expected: str
) -> None:
    found = problems(tmp_path, prompt=prompt)
    assert list(found) == [path]
    assert expected in str(found[path])
    assert "diary" not in str(found)


def test_a_prompt_where_a_path_belongs_is_distinguished_from_a_wrong_path(tmp_path: Path) -> None:
    pasted = str(problems(tmp_path, prompt={"text_file": DIARY})["prompt.text_file"])
    assert pasted.startswith("prompt.text_file: a path is expected, this looks like the text itself; ")
    assert "write it to a file" in pasted
    wrong = str(problems(tmp_path, prompt={"text_file": "prompts/artcle.txt"})["prompt.text_file"])
    assert wrong.startswith(
        f"prompt.text_file: 'prompts/artcle.txt'; allowed: a file that exists, absolute or below {tmp_path}"
    )


@pytest.mark.parametrize(
    "content",
    [
        f"{DIARY}.\n{DIARY}",
        f"{DIARY}: yes",
        f"- {DIARY}",
        f"prompt: {{text_file: '{DIARY}\nname: a",
        f"prompt:\n  text_file: {DIARY}: {DIARY}\n",
        f"prompt: *{DIARY}",
        f"prompt: !{DIARY}",
        f"prompt: !!{DIARY}",
        f"prompt: &{DIARY} @{DIARY}",
        f"prompt: {{{DIARY}: 1, {DIARY}: 2}}",
        f"prompt: {{[{DIARY}]: 1}}",
        f"prompt: {{? {{{DIARY}: 1}} : 1}}",
        f"name: 2024-99-99\nprompt: {DIARY}",
        f"name: {'[' * 5000}\nprompt: {DIARY}",
        f"name: \x07\nprompt: {DIARY}",
    ],
)
def test_a_file_that_is_not_an_experiment_is_not_quoted(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        load_experiment(path)
    for word in ("Dear", "diary", "0417"):
        assert word not in str(caught.value)


def test_paths_that_cannot_be_looked_up_are_named_with_their_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in ("~no-such-user/file.txt", "x" * 300, "folder/" + "x" * 300, "a\0b"):
        for key, changes in (("model", {"model": value}), ("prompt.text_file", {"prompt": {"text_file": value}})):
            assert list(problems(tmp_path, **changes)) == [key]
    assert "home folder" in problems(tmp_path, model="~no-such-user/model")["model"].allowed
    # Root may look into every folder, so the refusal is simulated.
    monkeypatch.setattr(Path, "exists", refuse)
    found = problems(tmp_path, model="m/odel", prompt={"text_file": "locked/prompt.txt"})
    assert all("Permission denied" in found[key].reason for key in ("model", "prompt.text_file"))


def refuse(*_: object) -> None:
    raise PermissionError(13, "Permission denied")


def test_a_prompt_that_cannot_be_read_or_is_a_git_lfs_pointer_is_refused_before_anything_starts(tmp_path: Path) -> None:
    found = problems(tmp_path, prompt={"text_file": "/proc/self/mem"})["prompt.text_file"]
    assert "Input/output error" in found.reason
    (tmp_path / "prompt.txt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 9\n")
    assert "git lfs pull" in problems(tmp_path, prompt={"text_file": "prompt.txt"})["prompt.text_file"].fix


def test_a_byte_order_mark_before_an_experiment(tmp_path: Path) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(GOOD), encoding="utf-8-sig")
    assert load_experiment(path).name == "quickstart"


def test_a_missing_file_and_a_folder_are_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_experiment(tmp_path / "missing.yaml")
    with pytest.raises(ConfigError, match="Is a directory"):
        load_experiment(tmp_path)


def test_an_experiment_survives_being_written_and_read(tmp_path: Path) -> None:
    experiment = samples.experiment(
        networks=[
            "none",
            "wan",
            "hpmpc-lan",
            {"name": "mine", "delay_ms": 5, "pairs": {"client>server": {"rate_mbit": 9}}},
        ],
        data_ports={"client": 7101},
        argmax="client",
    )
    path = tmp_path / "frozen.yaml"
    path.write_text(yaml.safe_dump(experiment.model_dump(mode="json")))
    assert load_experiment(path) == experiment


def test_networks_are_resolved_for_every_ordered_pair_of_the_protocol() -> None:
    experiment = samples.experiment(
        networks=[{"name": "mine", "delay_ms": 5, "pairs": {"client>server": {"rate_mbit": 9}}}]
    )
    (network,) = experiment.networks
    assert len(network.pairs) == 6
    assert network.link("client", "server") == Link(rate_mbit=9, delay_ms=5)
    assert network.link("server", "client") == Link(delay_ms=5)
    assert network.profile().rtt_ms("client", "dealer") == 10


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(list(Experiment.model_fields)) | st.text(max_size=8), _values, max_size=5))
def test_any_mapping_is_an_experiment_or_a_list_of_problems(values: dict[str, object]) -> None:
    try:
        Experiment.model_validate({**GOOD, **values})
    except ValidationError as error:
        found = problems_of(error, Experiment)
        assert found
        assert all(problem.allowed and problem.fix for problem in found)
        assert str(ConfigError("a.yaml", found)).startswith("a.yaml: ")


def test_the_examples_are_experiments() -> None:
    folder = ROOT / "examples"
    studies = {"quality.yaml", "ahead.yaml", "needles.yaml"}
    names = {load_experiment(path).name for path in folder.glob("*.yaml") if path.name not in studies}
    assert {"quickstart", "lengths"} <= names
    assert load_study(folder / "quality.yaml").name == "quality"


def test_bounds_are_read_from_a_file_and_are_part_of_the_ids_of_the_engine_that_takes_them(tmp_path: Path) -> None:
    (tmp_path / "bounds.yaml").write_text("# of a model\ndown: 4096\nmean square: 4194304\n")
    both = {"engines": ["fss", "crypten"], "policies": ["full"], "seq_lens": [128]}
    plain, wide = (expand(load(tmp_path, **both, **more)) for more in ({}, {"bounds": "bounds.yaml"}))
    assert wide[0].bounds == (("down", 4096), ("mean square", 4194304))
    assert wide[0].id != plain[0].id
    assert wide[1] == plain[1]
    assert load(tmp_path, **both, bounds={"mean square": 4194304, "down": 4096}).bounds == wide[0].bounds
    assert Experiment.model_validate(load(tmp_path, **both, bounds="bounds.yaml").model_dump(mode="json")).bounds


def test_bounds_that_the_engine_does_not_take_are_refused_by_number(tmp_path: Path) -> None:
    found = problems(tmp_path, bounds={"down": 4095, "activaton": 128, "product": "large"})
    assert found["bounds.down"].allowed == "a power of two from 1 to 131072"
    assert found["bounds.activaton"].fix == "write activation"
    assert found["bounds.product"].allowed == "a power of two"
    (tmp_path / "prompt.txt").write_text("a secret\n")
    assert "a secret" not in str(problems(tmp_path, bounds="prompt.txt")["bounds"])
    assert "bounds" in problems(tmp_path, bounds=7)
