"""The command `calibrate`: from a model whose numbers the engine does not take to one that decodes as in the clear."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor
from typer.testing import CliRunner

from orchestrator.cli.common import ExitCode
from orchestrator.cli.main import app
from orchestrator.ranges import measure as measuring
from orchestrator.ranges.measure import Measured
from orchestrator.ranges.propose import bounds_of, propose
from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.program import Program, run
from parties.engines.bounds import Bound, certain, rare
from parties.engines.fss.bounds import BOUNDS, NARROWED, declared
from parties.engines.fss.computation import Computation
from parties.engines.fss.cost.simulation import Simulation, value_of
from parties.engines.fss.randomness.source import CLIENT, SERVER, Source
from parties.engines.plain import PlainEngine
from parties.metering.meter import StageMeter
from parties.models import load_spec, load_weights
from parties.models.folding import fold
from parties.options import RunOptions
from parties.policies import Full
from tests.parties.engines.fss.arithmetic.test_embedding import table_of

MODEL = "random:llama?layers=1&hidden=16&heads=2&kv_heads=1&head_dim=8&intermediate=16&vocab=256"
TOKENS = [5, 77, 200]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("Bounds of a model are measured over a text. " * 2)
    return path


def scaled(monkeypatch: pytest.MonkeyPatch, **factors: float) -> dict[str, Tensor]:
    """The folded weights of the model with some matrices scaled, which the command finds too."""
    weights = load_weights(MODEL)
    weights = {
        n: w * next((f for name, f in factors.items() if n.endswith(f"{name}.weight")), 1.0) for n, w in weights.items()
    }
    monkeypatch.setattr(measuring, "load_weights", lambda _: weights)
    return fold(load_spec(MODEL), weights)


def output_of(*arguments: Any, code: int = ExitCode.OK) -> str:
    result = CliRunner().invoke(app, ["calibrate", MODEL, *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.output


def decoded(engine: Any, token: list[int] | None, decoder: Decoder, cache: Cache) -> Program[Any]:
    logits = None
    for index in range(len(TOKENS)):
        own = None if token is None else token[index : index + 1]
        logits = yield from decoder.step((yield from decoder.embed(own, 1, cache.position)), cache)
    return logits


def privately(folded: dict[str, Tensor], options: RunOptions) -> Tensor:
    spec, shapes = load_spec(MODEL), {name: tuple(w.shape) for name, w in folded.items()}

    def program(source: Source) -> Program[Any]:
        engine = Computation(source)
        engine.configure(options)
        engine.matrices = {name: table_of(source, w) for name, w in folded.items() if w.dim() == 2}
        yield from engine.install(shapes, folded if source.rank == SERVER else None)
        own = TOKENS if source.rank == CLIENT else None
        return (yield from decoded(engine, own, Decoder(engine, spec, Full()), Cache.empty(spec.n_layers)))

    return value_of(*Simulation(3).run(program))


def test_a_model_with_larger_numbers_decodes_as_in_the_clear_with_its_own_bounds(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folded, out = scaled(monkeypatch, gate=40.0, o=100.0), tmp_path / "bounds.yaml"
    printed = output_of("--text", text, "--out", out, "--layers")
    wider = yaml.safe_load(out.read_text())
    assert set(wider) == {"activation"}, printed
    assert "reveals about the weights" in printed
    assert "stays below a power of two" in " ".join(printed.split())
    spec, plain = load_spec(MODEL), PlainEngine(StageMeter())
    run(plain.install({}, folded))
    expected = run(decoded(plain, TOKENS, Decoder(plain, spec, Full()), Cache.empty(spec.n_layers)))
    # a run between hosts does not check, and a few outputs beyond a rare bound do not pay for a wider one
    monkeypatch.setattr("parties.engines.fss.cost.simulation._require", lambda *_: None)
    found = privately(folded, RunOptions.model_validate({"bounds": wider}))
    wrong = privately(folded, RunOptions())
    assert (found - expected).abs().max() < 0.1
    assert (wrong - expected).abs().max() > 1


def test_a_model_within_the_engines_ranges_needs_no_file(text: Path, tmp_path: Path) -> None:
    out = tmp_path / "bounds.yaml"
    assert "no file is needed" in output_of("--text", text, "--out", out, "--policy", "mpcache")
    assert not out.exists()


def test_narrow_bounds_are_proposed_on_request_and_a_cell_takes_them(text: Path, tmp_path: Path) -> None:
    out = tmp_path / "bounds.yaml"
    printed = output_of("--text", text, "--out", out, "--narrow")
    narrow = yaml.safe_load(out.read_text())
    assert narrow.keys() <= NARROWED
    assert all(limit < BOUNDS[number].limit for number, limit in narrow.items())
    assert "rarely exceeds it" in " ".join(printed.split())
    assert declared(RunOptions.model_validate({"bounds": narrow}).bounds)["down"].limit == narrow["down"]


def test_numbers_that_no_bound_admits_are_named_and_no_file_is_written(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scaled(monkeypatch, q=1e4)
    printed = output_of("--text", text, "--out", tmp_path / "bounds.yaml", code=ExitCode.FAILED)
    assert "fss would compute wrong results: attention score reaches" in printed
    assert not (tmp_path / "bounds.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--text", "none.txt"], "--text none.txt: cannot be read: No such file"),
        (["--text", "TEXT", "--policy", "mpcach"], "write mpcache"),
    ],
)
def test_bad_input_is_named(arguments: list[str], message: str, text: Path) -> None:
    words = [str(text) if word == "TEXT" else word for word in arguments]
    assert message in output_of(*words, code=ExitCode.BAD_INPUT)


def measured(bound: Bound, *values: float, tokens: int = 1) -> Measured:
    watch = Measured({"x": bound}, tokens=tokens)
    for layer, value in enumerate(values):
        watch.see("x", torch.tensor([value]), layer)
    return watch


@pytest.mark.parametrize(
    ("largest", "limit", "tight"),
    [(50.0, None, False), (52.0, 128, False), (103.0, 256, False), (210.0, 256, True), (300.0, None, False)],
)
def test_a_certain_number_gets_the_next_power_of_two_above_its_head_room(
    largest: float, limit: int | None, tight: bool
) -> None:
    (found,) = propose(measured(certain("x", -63.9, 63.9), -3.0, largest), {"x": 256.0})
    assert (found.limit, found.tight, found.layer, found.refused) == (limit, tight, 1, largest > 256)


def test_a_rare_number_gets_a_wider_bound_only_if_truncations_beyond_it_would_often_be_wrong() -> None:
    few, many = (propose(measured(rare("x", 2.0**11, 32), 3e4, tokens=n), {"x": 2.0**17})[0] for n in (1000, 1))
    assert few.limit is None
    assert few.chance == pytest.approx(1.25 * (3e4 - 2048) * 2.0**-32 / 1000)
    assert bounds_of([few, many]) == {"x": many.limit} != {}
    assert many.limit is not None
    assert many.limit & (many.limit - 1) == 0
    assert many.chance < 2.0**-20 < 1.25 * (3e4 - many.limit / 2) * 2.0**-32
    narrow, *_ = propose(measured(rare("x", 2.0**11, 32), 3.0, tokens=1000), {"x": 2.0**17}, narrowed={"x"})
    assert (narrow.limit, narrow.tight) == (1, False), "2^-20 leaves room for few numbers that exceed it"
    assert many.retries == pytest.approx(many.limit * 2.0 ** (32 - 63))
