"""The referee: the bench's own process, which has everything in the clear and checks the private run.

It is not part of the protocol. It runs the bench's work in the clear (`prefill: shared`, the `plain` reference), so
that the prompt and the weights never meet in a party of the protocol. All of its computing happens before the parties
start their clocks or after they stopped them.
"""

import time
from collections import ChainMap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from parties.decoding.batch import Batch, by_sequence
from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder, draft_problem
from parties.decoding.drafts import Drafting
from parties.decoding.program import run
from parties.decoding.steps import decode_token, fold
from parties.engines.base import Engine
from parties.engines.bounds import Kind, Watch
from parties.engines.factory import engine_class
from parties.engines.plain import PlainEngine
from parties.engines.watched import WatchedEngine
from parties.errors import OutOfRange, Unsupported
from parties.heads.folding import head_of, shapes_of
from parties.metering.cgroup import usable_cpus
from parties.metering.meter import StageMeter
from parties.metering.process import release_memory
from parties.metering.progress import Progress
from parties.models import ModelSpec, Tokenizer, folding, load_spec, load_tokenizer, load_weights
from parties.roles.agreement import agreement
from parties.roles.drafter import make_drafter
from parties.roles.job import Job
from parties.roles.kept_prompts import KeptPrompts
from parties.roles.prompt import prompts
from parties.roles.reports import CheckReport, RangeReport, RoleResult
from parties.transport.mesh import Mesh


@dataclass
class Reference:
    """The output of the plain engine: for each step the logits, [sequences, vocab], and the greedy choices.

    With drafts, in a cell of the engine `plain`, also how many draft tokens each pass could accept, and did.
    """

    logits: list[torch.Tensor]
    tokens: list[list[int]]
    seconds: float
    drafted: tuple[int, ...] = ()
    accepted: tuple[int, ...] = ()


@dataclass
class Session:
    """A model on the plain engine with a meter of its own, and its prompts, kept from cell to cell."""

    key: tuple[str, str, str | None]
    engine: WatchedEngine
    spec: ModelSpec
    tokenizer: Tokenizer
    prompts: KeptPrompts = field(default_factory=KeptPrompts)


class Referee:
    """Prefills in the clear, shares the cache, and checks."""

    def __init__(self, mesh: Mesh, meter: StageMeter, state: Progress) -> None:
        self.mesh, self.meter, self.state = mesh, meter, state
        self._session: Session | None = None

    def run(self, job: Job) -> RoleResult:
        """Runs one cell: prefill and reference first, then shares or the start signal, then the check.

        A cell of the engine `plain` is the reference itself, and its stages are those of the referee.

        Raises:
            OutOfRange: A number leaves the range over which the cell's engine is right; nobody has computed anything
                private by then.
        """
        self.state.enter("loading")
        with self.meter.stage("bench.load"):
            session = self._open(job)
        own = prompts(job, session.tokenizer, session.spec)
        decoder = Decoder(session.engine, session.spec, job.policy.build())
        if job.options.draft and (problem := draft_problem(_engine(job), decoder.policy, job.batch)):
            raise Unsupported(f"draft: {problem}")
        self.state.enter("prefill")
        bounds = _engine(job).declared(job.options)
        # a shared prompt runs in the clear: only values that policies keep for later comparisons are checked
        kept = {key: bound for key, bound in bounds.items() if key == "declared"}
        session.engine.watch = watch = Watch(bounds if job.options.prefill == "mpc" else kept)
        with self.meter.stage("bench.prefill"), _all_cores():
            batch = Batch([_prefill(job, session, decoder, tokens[:-1]) for tokens in own])
        release_memory()
        _refuse(job.engine, watch)
        prefilled = [
            (cache.position, {name: value.cpu() for name, value in cache.values().items()}) for cache in batch.sequences
        ]
        with self.meter.stage("bench.reference"):
            session.engine.meter.reset()
            watch.bounds = bounds
            if job.options.draft and job.engine == PlainEngine.name:
                reference = self._decode_drafts(job, decoder, batch, own[0])
            else:
                reference = self._decode(job, decoder, batch, [tokens[-1] for tokens in own], watch)
        _refuse(job.engine, watch)
        passes = tuple(self.state.pass_seconds)
        result = RoleResult(tokens=job.new_tokens, decode_seconds=reference.seconds, pass_seconds=passes)
        if job.engine == "plain":
            texts = (session.tokenizer.decode(tokens) for tokens in by_sequence(reference.tokens))
            text = "\n".join(texts) if job.show_text else None
            stages = session.engine.meter.snapshot()
            drafts = {"drafted": reference.drafted, "accepted": reference.accepted}
            return result.model_copy(update={"stages": stages, "text": text, **drafts})
        if job.options.prefill == "shared":
            self._share(job, prefilled)
        else:
            self._start(job, [position for position, _ in prefilled])
        del batch, prefilled  # while the parties decode, the caches are theirs alone
        release_memory()
        self.state.enter("check")
        check = self._check(job, session.spec, reference)
        if (left := watch.first.get(Kind.RARE)) is None:
            return result.model_copy(update={"check": check})
        seen = RangeReport(**{**left.to_json(), "chance": watch.chance})
        warnings = (_warning(job.engine, str(left), watch.chance),)
        return result.model_copy(
            update={"check": check.model_copy(update={"out_of_range": seen}), "warnings": warnings}
        )

    def _open(self, job: Job) -> Session:
        plain = job.engine == PlainEngine.name  # of which this is the only party
        device = ("cuda" if job.gpu else "cpu") if plain else job.device_if_any
        wanted = (job.model, device, job.policy.parameters.get("head"))
        if self._session is None or self._session.key != wanted:
            self._session = None  # frees the old model before the new one comes
            spec, weights = load_spec(job.model), load_weights(job.model)
            heads = head_of(job.policy.build(), spec, weights)
            engine = WatchedEngine(StageMeter(), device=device)
            shapes = folding.folded_shapes(spec) | shapes_of(heads)
            run(engine.install(shapes, ChainMap(heads, folding.Folded(spec, weights))))  # type: ignore[arg-type] # is only read
            self._session = Session(wanted, engine, spec, load_tokenizer(job.model))
            del weights, heads
            release_memory()
        return self._session

    def _decode(self, job: Job, decoder: Decoder, batch: Batch, tokens: list[int], watch: Watch) -> Reference:
        fold(decoder, batch)
        start, kept, generated = time.perf_counter(), [], []
        if job.engine == "plain":
            self.state.prefilled(batch.cached)
        for index in range(job.new_tokens):
            watch.token = index + 1
            logits, chosen = run(decode_token(decoder, batch, tokens, job.options.argmax))
            tokens = chosen or []
            kept.append(logits.cpu())
            generated.append(tokens)
            if job.engine == "plain":
                numbers = decoder.spec.cached_numbers
                self.state.token(batch.cached, decoder.policy.attended, numbers, sequences=job.batch)
        return Reference(kept, generated, time.perf_counter() - start)

    def _decode_drafts(self, job: Job, decoder: Decoder, batch: Batch, tokens: list[int]) -> Reference:
        """Decodes with drafts, as client and server do."""
        (cache,), draft = batch.sequences, job.options.draft
        assert draft is not None  # noqa: S101 - the caller has seen it
        drafter = make_drafter(draft, decoder.spec.vocab)
        options = (job.new_tokens, draft.count, job.options.argmax, drafter, list(tokens))
        start, drafting = time.perf_counter(), Drafting(decoder, cache, *options)
        self.state.prefilled(cache.tokens)
        kept, generated = list[torch.Tensor](), list[list[int]]()
        for found in drafting.passes():
            kept += [row.cpu() for row in found.logits]
            generated += [[token or 0] for token in found.tokens]
            self.state.token(
                cache.tokens,
                decoder.policy.attended,
                decoder.spec.cached_numbers,
                tokens=len(found.logits),
                drafted=drafting.drafted[-1],
                accepted=drafting.accepted[-1],
            )
        seconds = time.perf_counter() - start
        return Reference(kept, generated, seconds, drafting.drafted, drafting.accepted)

    def _share(self, job: Job, prefilled: list[tuple[int, dict[str, torch.Tensor]]]) -> None:
        """Cuts the prefilled caches into uniformly random shares, one for each computing party."""
        split = _engine(job).split
        sequences = [
            {"position": position, "shapes": {name: list(value.shape) for name, value in values.items()}}
            for position, values in prefilled
        ]
        with self.meter.stage("bench.prefill"):
            for role in job.computing:
                self.mesh[role].send_json({"sequences": sequences})
            for value in (value for _, values in prefilled for value in values.values()):
                for role, share in zip(("client", "server"), split(value), strict=True):
                    self.mesh[role].send_tensor(share)

    def _start(self, job: Job, lengths: list[int]) -> None:
        """Lets the parties begin to run the prompts; the reference is done and takes no more of the machine.

        Args:
            job: The cell.
            lengths: Tokens of each prompt without its last one. They are public; the client would announce them.
        """
        with self.meter.stage("bench.prefill"):
            for role in job.computing:
                self.mesh[role].send_json({"lengths": lengths})

    def _check(self, job: Job, spec: ModelSpec, reference: Reference) -> CheckReport:
        """Puts the shares of the logits together and compares, for as long as the tokens so far are the same."""
        engine = _engine(job)
        with self.meter.stage("bench.check"):
            for role in ("client", "server"):
                self.mesh[role].await_peer()
            parts = {
                role: [self.mesh[role].receive_tensor((job.batch, spec.vocab), torch.int64) for _ in reference.logits]
                for role in ("client", "server")
            }
            generated = self.mesh["client"].receive_json()["tokens"]
        shares = zip(parts["client"], parts["server"], strict=True)
        private = torch.stack([engine.combine(both) for both in shares], 1)
        errors = (private - torch.stack(reference.logits, 1)).abs().amax(-1)
        return agreement(errors, by_sequence(generated), by_sequence(reference.tokens), engine.tolerance)


def _engine(job: Job) -> type[Engine]:
    return engine_class(job.engine, options=job.options)


def _prefill(job: Job, session: Session, decoder: Decoder, tokens: list[int]) -> Cache:
    """The prompt through the cell's policy; its attention only if no earlier cell of the session computed it.

    In a cell that runs the prompt privately all of the prompt's numbers are watched, so all of them are computed. On a
    GPU nothing is kept: its memory is not the host's.
    """
    inputs, cache = None, Cache.empty(session.spec.n_layers)
    if job.options.prefill == "shared" and session.engine.device == "cpu":
        inputs = session.prompts.inputs(tokens, session.spec, decoder.policy)
    run(decoder.prefill(run(decoder.embed(tokens, len(tokens), 0)), cache, inputs))
    return cache


@contextmanager
def _all_cores() -> Iterator[None]:
    """Lets torch use all cores that this process may use, as no party's clock runs; afterwards its share as before."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(threads, int(usable_cpus())))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _refuse(engine: str, watch: Watch) -> None:
    if (left := watch.first.get(Kind.CERTAIN)) is not None:
        raise OutOfRange(engine, str(left), left.to_json())


def _warning(engine: str, left: str, chance: float) -> str:
    return (
        f"{left}, which {engine} truncates; beyond that range a truncation may be wrong, unseen: in this cell with "
        f"probability {chance:.1e}"
    )
