"""`mpcache-bench eval`: studies that are checked, resumed and averaged honestly."""

import contextlib
import importlib
import json
import multiprocessing
import signal
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest
import tokenizers
import yaml
from tokenizers.processors import TemplateProcessing
from typer.testing import CliRunner

from orchestrator.cli.main import app
from orchestrator.experiment.choices import chosen_policy
from orchestrator.experiment.problems import ConfigError
from orchestrator.quality.averages import accuracy, lines_of
from orchestrator.quality.frontier import price, undominated
from orchestrator.quality.reader import Prefix, Reader
from orchestrator.quality.results import Point, Result, ResultStore
from orchestrator.quality.study import Contender, load_study
from orchestrator.records.store import StoreError
from parties.models import Tokenizer, load_tokenizer

with warnings.catch_warnings(), contextlib.suppress(ImportError):
    warnings.simplefilter("ignore")  # its dependencies warn
    importlib.import_module("kvpress")  # so that no test is the first to

MODEL = "random:llama?layers=1&hidden=16&heads=2&kv_heads=1&intermediate=16&vocab=256&positions=2048"
STUDY = {
    "name": "toy",
    "model": MODEL,
    "policies": ["snapkv", "mpcache", {"name": "quest", "compression_ratio": 0.9}],
    "budgets": [0.5, 0.25],
    "lengths": [300],
    "tasks": ["needle_single", {"name": "fidelity", "file": "text.txt"}],
    "samples": 2,
    "continuation": 3,
}


def study_file(folder: Path, **changes: object) -> Path:
    (folder / "text.txt").write_text("Some words to follow. " * 60)
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(STUDY | changes))
    return path


def evaluate(path: Path, out: Path, *options: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["eval", str(path), "--out", str(out), *options])
    return done.exit_code, done.output


@pytest.mark.slow
def test_a_study_ends_in_a_report_and_resumes_after_its_last_result(tmp_path: Path) -> None:
    path, out = study_file(tmp_path), tmp_path / "out"
    code, output = evaluate(path, out)
    assert code == 0, output
    results = (out / "results.jsonl").read_text().splitlines()
    assert len(results) == 2 * (1 + 2) * 6  # samples; fidelity and two kinds of question; policies, the full cache too
    report = (out / "report.md").read_text()
    assert "| full | 100.0% | 100.0% |" in report
    assert "question visible | question hidden" in report
    (out / "results.jsonl").write_text("\n".join(results[:-5]) + "\n" + results[-5][:40])  # a truncated line
    code, output = evaluate(path, out, "--dry-run")
    assert "36 points, 5 left: 1 prompts to read" in output
    assert evaluate(path, out)[0] == 0
    again = (out / "results.jsonl").read_text().splitlines()
    assert again == results
    assert (out / "report.md").read_text() == report


@pytest.mark.slow
def test_workers_give_the_results_of_one_process(tmp_path: Path) -> None:
    path, alone, together = study_file(tmp_path), tmp_path / "alone", tmp_path / "together"
    assert evaluate(path, alone)[0] == 0
    code, output = evaluate(path, together, "--jobs", "2")
    assert code == 0, output
    found = [results_in(out) for out in (alone, together)]
    assert found[0].keys() == found[1].keys()
    for case, values in found[0].items():  # sums of float32 depend on the number of threads
        assert found[1][case] == pytest.approx(values, rel=1e-5, abs=1e-5)


def results_in(out: Path) -> dict[str, dict[str, float]]:
    """The values of each case."""
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    return {json.dumps(line, sort_keys=True): values for line in lines for values in [line.pop("values")]}


@pytest.mark.slow
def test_a_worker_that_cannot_go_on_ends_the_study_by_name(tmp_path: Path) -> None:
    path = study_file(tmp_path, policies=["full", {"name": "locret", "head": "/none.safetensors"}])
    code, output = evaluate(path, tmp_path / "out", "--jobs", "2")
    assert code == 2
    assert "/none.safetensors" in " ".join(output.split())
    assert multiprocessing.active_children() == []


def longbench_file(folder: Path, *sets: str) -> dict[str, str]:
    """A task on a file with a sample of each set, whose lines hold a line separator and end in a blank one."""
    rows = [
        {"input": "Who?", "context": "Ada\u2028Worth " * 40, "answers": ["Ada"], "dataset": name, "all_classes": None}
        for name in sets
    ]
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (folder / "set.jsonl").write_text(f"{text}\n\n", encoding="utf-8")
    return {"name": "longbench", "file": "set.jsonl"}


@pytest.fixture
def prompts(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The compressed prompts, in order."""
    found, read = list[list[int]](), Reader.read

    def recording(self: Reader, tokens: Sequence[int]) -> Prefix:
        found.append(list(tokens))
        return read(self, tokens)

    monkeypatch.setattr(Reader, "read", recording)
    return found


def test_longbench_is_cut_to_the_length_in_the_middle(tmp_path: Path, prompts: list[list[int]]) -> None:
    task = longbench_file(tmp_path, "lcc", "repobench-p")
    path = study_file(tmp_path, policies=["full"], tasks=[task], questions=["visible"], lengths=[80, 1000])
    code, output = evaluate(path, tmp_path / "out")
    assert code == 0, output
    assert [len(tokens) for tokens in prompts[:2]] == [79, 79]  # the last token is decoded through the cache
    decode = load_tokenizer(MODEL).decode
    start, end = "Please complete the code given below. \nA", "\u2028Worth Ada\u2028Worth Next line of code:"
    assert decode(prompts[0]) == start + end
    assert decode(prompts[3]).endswith("\u2028Worth Who?Next line of code:")


def test_prompts_begin_with_the_leading_token_and_have_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prompts: list[list[int]]
) -> None:
    inner = tokenizers.Tokenizer.from_str(load_tokenizer(MODEL).to_json()["tokenizer"])
    inner.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 255)])
    monkeypatch.setattr(
        "orchestrator.quality.reader.load_tokenizer", lambda _: Tokenizer(inner, inner.get_vocab_size())
    )
    code, output = evaluate(study_file(tmp_path, policies=["full"]), tmp_path / "out")
    assert code == 0, output
    assert len(prompts) == 2 * (1 + 2)
    for tokens in prompts:
        assert [i for i, token in enumerate(tokens) if token == 255] == [0]
    text = (tmp_path / "text.txt").read_text()
    windows = [inner.decode(tokens[1:]) for tokens in prompts if len(tokens) == 299]
    assert windows == [text[:298], text[302:600]]  # 300 and 3 that follow, with the leading token


def test_results_of_another_format_are_not_mixed(tmp_path: Path) -> None:
    path, out = study_file(tmp_path, policies=["full"], tasks=["needle_single"]), tmp_path / "out"
    assert evaluate(path, out)[0] == 0
    results = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    for result in results:
        del result["form"]  # as they once were
    (out / "results.jsonl").write_text("".join(json.dumps(result) + "\n" for result in results))
    code, output = evaluate(path, out)
    assert code == 2
    assert "another version of this program, which asked or scored otherwise" in " ".join(output.split())
    assert len(ResultStore(out).read()) == len(results)  # read they can be


def test_a_line_separator_in_a_name_does_not_end_a_line(tmp_path: Path) -> None:
    strange = result("full", "visible", 1.0).model_copy(update={"task": "longbench:a\u2028b\x85c"})
    with ResultStore(tmp_path) as store:
        store.append(strange)
    assert ResultStore(tmp_path).read() == (strange,)


def test_results_of_another_seed_are_not_mixed(tmp_path: Path) -> None:
    with ResultStore(tmp_path / "out") as store:
        store.begin(load_study(study_file(tmp_path)))
        with pytest.raises(StoreError, match="holds results with seed: 0, the file has 1"):
            store.begin(load_study(study_file(tmp_path, seed=1)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": ["needles"]}, r"tasks\[0\].name: 'needles'"),
        ({"tasks": ["fidelity"]}, r"tasks\[0\].file: None; allowed: a path"),
        ({"tasks": [{"name": "longbench", "file": "none.jsonl"}]}, r"a file that exists, absolute or below"),
        ({"lengths": [4096]}, r"lengths\[0\]: 4096; allowed: at most 2048"),
        ({"policies": ["snapvk"]}, "snapkv"),
        ({"policies": [{"name": "snapkv", "compression_ratio": 1.0}]}, "compression_ratio"),
        ({"budgets": [0.0]}, r"budgets\[0\]"),
        ({"budget": 1}, "budgets"),
        ({"model": "random:none"}, "model"),
    ],
)
def test_a_bad_study_is_refused_with_the_reason(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_study(study_file(tmp_path, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 50}, "50 samples of 300 and 3 that follow take 15150"),
        ({"lengths": [64], "tasks": ["variable_tracking"]}, "lengths: 64, task variable_tracking: length: too short"),
        ({"policies": [{"name": "locret", "head": "/none.safetensors"}]}, "/none.safetensors"),
        ({"presses": ["kvpress:NoPress()"]}, "presses: 'kvpress:NoPress()'"),
        ({"tasks": [{"name": "longbench", "file": "nq.jsonl"}]}, "line 1: the prompt of data set 'nq' is not known"),
        ({"tasks": [{"name": "longbench", "file": "one.jsonl"}]}, "one.jsonl has 1 samples, samples asks for 2"),
        ({"device": "cuda"}, "there is no CUDA device"),
    ],
)
def test_errors_during_evaluation_are_named_too(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    import torch

    for name in ("nq", "lcc"):
        longbench_file(tmp_path, name)
        (tmp_path / "set.jsonl").rename(tmp_path / {"nq": "nq.jsonl", "lcc": "one.jsonl"}[name])
    if "device" in changes and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    code, output = evaluate(study_file(tmp_path, **changes), tmp_path / "out")
    assert code == 2
    assert message in " ".join(output.split())


@pytest.mark.parametrize("name", ["snapkv", "quest", "mpcache", "mpcache+"])
@pytest.mark.parametrize("budget", [0.5, 0.25, 0.1])
def test_a_budget_approximates_the_attended_tokens(name: str, budget: float) -> None:
    choice = Contender.model_validate(name).at(budget)
    policy = choice.build()
    assert policy.attended(policy.cached(4096)) / 4096 == pytest.approx(budget, rel=0.2)


def test_a_kvpress_press_is_evaluated_along_with_our_policies(tmp_path: Path) -> None:
    pytest.importorskip("kvpress", reason="kvpress is not installed: requirements-dev-nodeps.txt")
    press = "kvpress:KnormPress(compression_ratio=0.5)"
    path = study_file(tmp_path, policies=["full"], presses=[press], samples=1)
    code, output = evaluate(path, tmp_path / "out")
    assert code == 0, output
    results = [json.loads(line) for line in (tmp_path / "out/results.jsonl").read_text().splitlines()]
    assert {result["task"] for result in results if result.get("press") == press} == {"needle_single", "fidelity"}
    report = (tmp_path / "out/report.md").read_text()
    frontier, measures = report.split("###", 1)
    assert press in measures
    assert press not in frontier


def result(policy: str, question: str, value: float, sample: int = 0) -> Result:
    point = Point(task="needle", length=512, question=question, sample=sample, policy=chosen_policy(policy))
    return Result(**dict(point), values={"accuracy": value})


def test_questions_in_sight_and_hidden_ones_are_never_averaged_together() -> None:
    (line,) = lines_of([result("full", "visible", 1.0), result("full", "hidden", 0.0)])
    visible, hidden = accuracy(line, "visible"), accuracy(line, "hidden")
    assert visible is not None
    assert hidden is not None
    assert (visible.value, hidden.value, visible.n) == (1.0, 0.0, 1)


def test_a_mean_has_the_standard_error_of_its_samples() -> None:
    (line,) = lines_of([result("full", "visible", value, i) for i, value in enumerate((0.0, 1.0, 1.0, 1.0))])
    (mean,) = line.columns.values()
    assert (mean.value, mean.n) == (0.75, 4)
    assert mean.error == pytest.approx(0.25)


def test_only_points_that_are_not_dominated_are_on_the_frontier() -> None:
    assert undominated([(1.0, 0.5), (2.0, 0.9), (2.0, 0.8), (3.0, 0.9), (1.0, 0.5)]) == [True, True, False, False, True]


def test_the_cost_is_that_of_a_token_of_fss(tmp_path: Path) -> None:
    full, kept = (price(MODEL, Contender.model_validate(p).policy, 300) for p in ("full", "snapkv"))
    assert kept.online_bytes < full.online_bytes
    assert full.seconds["lan"] < full.seconds["wan"]
    assert not full.measured


def test_a_corrupt_line_is_named_moved_and_evaluated_again(tmp_path: Path) -> None:
    path, out = study_file(tmp_path, policies=["full"], tasks=["needle_single"], samples=1), tmp_path / "out"
    assert evaluate(path, out)[0] == 0
    lines = (out / "results.jsonl").read_text().splitlines()
    (out / "results.jsonl").write_text('{"task": "x"}\n' + lines[1] + "\n")
    reader = ResultStore(out)
    assert len(reader.read()) == 1
    assert "results.jsonl line 1 is corrupt" in reader.warnings[0]
    code, output = evaluate(path, out)
    assert code == 0
    assert "1 corrupt line(s)" in output
    assert (out / "results.torn").read_text() == '{"task": "x"}\n'
    assert sorted((out / "results.jsonl").read_text().splitlines()) == sorted(lines)


def test_a_folder_that_another_study_writes_to_is_refused(tmp_path: Path) -> None:
    with ResultStore(tmp_path / "out"):
        code, output = evaluate(study_file(tmp_path), tmp_path / "out")
    assert code == 2
    assert "another run writes to" in output


DIES_IN_A_WRITE = """
import os, signal, sys
from orchestrator.cli.main import main
from orchestrator.records import jsonl

left = int(sys.argv.pop(1))

def write_half(file, line, whole=jsonl._write_whole):
    global left
    left -= 1
    if not left:
        file.write(line[: len(line) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    whole(file, line)

jsonl._write_whole = write_half
main()
"""


def test_a_kill_in_the_middle_of_a_write_loses_no_finished_result(tmp_path: Path) -> None:
    path, out = study_file(tmp_path, policies=["snapkv"], tasks=["needle_single"]), tmp_path / "out"
    finished = 4
    program = [sys.executable, "-c", DIES_IN_A_WRITE, str(finished + 1), "eval", str(path), "--out", str(out)]
    assert subprocess.run(program, capture_output=True, check=False).returncode == -signal.SIGKILL
    left_behind = (out / "results.jsonl").read_text()
    assert not left_behind.endswith("\n")
    *whole, half = left_behind.split("\n")
    assert len(whole) == len(ResultStore(out).read()) == finished
    code, output = evaluate(path, out)
    assert code == 0, output
    after = (out / "results.jsonl").read_text().splitlines()
    assert after[:finished] == whole
    assert len(after) == len({json.loads(line)["sample"] for line in after}) * 2 * 3
    assert (out / "results.torn").read_text() == half + "\n"
