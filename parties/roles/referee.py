"""The referee: the bench's own process, which has everything in the clear and checks the private run.

It is not part of the protocol. It runs the bench's work in the clear (`prefill: shared`, the `plain` reference), so
that the prompt and the weights never meet in a party of the protocol. All of its computing happens before the parties
start their clocks or after they stopped them.
"""

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder, decode_token, draft_problem
from parties.decoding.drafts import Drafting, make_drafter
from parties.decoding.program import run
from parties.engines.base import Engine
from parties.engines.bounds import Kind, Watch
from parties.engines.factory import engine_class
from parties.engines.plain import PlainEngine
from parties.engines.watched import WatchedEngine
from parties.errors import OutOfRange, Unsupported
from parties.heads.folding import head_of, shapes_of
from parties.metering.cgroup import usable_cpus
from parties.metering.meter import StageMeter
from parties.metering.progress import Progress
from parties.models import ModelSpec, Tokenizer, load_spec, load_tokenizer, load_weights
from parties.models.folding import fold, folded_shapes
from parties.roles.job import Job
from parties.roles.kept_prompts import KeptPrompts
from parties.roles.prompt import prompt_tokens
from parties.roles.reports import CheckReport, RangeReport, RoleResult
from parties.transport.mesh import Mesh


@dataclass
class Reference:
    """The output of the plain engine: for each new token the logits, [1, vocab], and the greedy choice.

    With drafts, in a cell of the engine `plain`, also how many draft tokens each pass could accept, and did.
    """

    logits: list[torch.Tensor]
    tokens: list[int]
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
        tokens = prompt_tokens(job, session.tokenizer, session.spec)
        decoder = Decoder(session.engine, session.spec, job.policy.build())
        if job.options.draft and (problem := draft_problem(_engine(job), decoder.policy)):
            raise Unsupported(f"draft: {problem}")
        self.state.enter("prefill")
        bounds = _engine(job).declared(job.options)
        # a shared prompt runs in the clear: only values that policies keep for later comparisons are checked
        kept = {key: bound for key, bound in bounds.items() if key == "declared"}
        session.engine.watch = watch = Watch(bounds if job.options.prefill == "mpc" else kept)
        with self.meter.stage("bench.prefill"), _all_cores():
            cache = _prefill(job, session, decoder, tokens[:-1])
        _refuse(job.engine, watch)
        prefilled, position = {name: value.cpu() for name, value in cache.values().items()}, cache.position
        with self.meter.stage("bench.reference"):
            session.engine.meter.reset()
            watch.bounds = bounds
            if job.options.draft and job.engine == "plain":
                reference = self._decode_drafts(job, decoder, cache, tokens)
            else:
                reference = self._decode(job, decoder, cache, tokens[-1], watch)
        _refuse(job.engine, watch)
        passes = tuple(self.state.pass_seconds)
        result = RoleResult(tokens=job.new_tokens, decode_seconds=reference.seconds, pass_seconds=passes)
        if job.engine == "plain":
            text = session.tokenizer.decode(reference.tokens) if job.show_text else None
            stages = session.engine.meter.snapshot()
            drafts = {"drafted": reference.drafted, "accepted": reference.accepted}
            return result.model_copy(update={"stages": stages, "text": text, **drafts})
        if job.options.prefill == "shared":
            self._share(job, prefilled, position)
        else:
            self._start(job)
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
        device = _device(job)
        wanted = (job.model, device, job.policy.parameters.get("head"))
        if self._session is None or self._session.key != wanted:
            self._session = None  # frees the old model before the new one comes
            spec, weights = load_spec(job.model), load_weights(job.model)
            heads = head_of(job.policy.build(), spec, weights)
            engine = WatchedEngine(StageMeter(), device=device)
            run(engine.install(folded_shapes(spec) | shapes_of(heads), fold(spec, weights) | heads))
            self._session = Session(wanted, engine, spec, load_tokenizer(job.model))
        return self._session

    def _decode(self, job: Job, decoder: Decoder, cache: Cache, token: int, watch: Watch) -> Reference:
        start, kept, generated = time.perf_counter(), [], []
        if job.engine == "plain":
            self.state.prefilled(cache.tokens)
        for index in range(job.new_tokens):
            watch.token = index + 1
            logits, chosen = run(decode_token(decoder, cache, [token], job.options.argmax))
            token = chosen or 0
            kept.append(logits.cpu())
            generated.append(token)
            if job.engine == "plain":
                self.state.token(cache.tokens, decoder.policy.attended, decoder.spec.cached_numbers)
        return Reference(kept, generated, time.perf_counter() - start)

    def _decode_drafts(self, job: Job, decoder: Decoder, cache: Cache, tokens: list[int]) -> Reference:
        """Decodes with drafts, as client and server do."""
        draft = job.options.draft
        assert draft is not None  # noqa: S101 - the caller has seen it
        drafter = make_drafter(draft, decoder.spec.vocab)
        options = (job.new_tokens, draft.count, job.options.argmax, drafter, list(tokens))
        start, drafting = time.perf_counter(), Drafting(decoder, cache, *options)
        self.state.prefilled(cache.tokens)
        kept, generated = list[torch.Tensor](), list[int]()
        for found in drafting.passes():
            kept += [row.cpu() for row in found.logits]
            generated += [token or 0 for token in found.tokens]
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

    def _share(self, job: Job, values: dict[str, torch.Tensor], position: int) -> None:
        """Cuts the prefilled cache into uniformly random shares, one for each computing party."""
        split = _engine(job).split
        card = {"position": position, "shapes": {name: list(value.shape) for name, value in values.items()}}
        with self.meter.stage("bench.prefill"):
            for role in job.computing:
                self.mesh[role].send_json(card)
            for value in values.values():
                for role, share in zip(("client", "server"), split(value), strict=True):
                    self.mesh[role].send_tensor(share)

    def _start(self, job: Job) -> None:
        """Lets the parties begin to run the prompt; the reference is done and takes no more of the machine."""
        with self.meter.stage("bench.prefill"):
            for role in job.computing:
                self.mesh[role].send_json({"start": True})

    def _check(self, job: Job, spec: ModelSpec, reference: Reference) -> CheckReport:
        """Puts the shares of the logits together and compares, for as long as the tokens so far are the same."""
        engine = _engine(job)
        with self.meter.stage("bench.check"):
            for role in ("client", "server"):
                self.mesh[role].await_peer()
            parts = {
                role: [self.mesh[role].receive_tensor((1, spec.vocab), torch.int64) for _ in reference.logits]
                for role in ("client", "server")
            }
            generated = self.mesh["client"].receive_json()["tokens"]
        errors = []
        for step, expected in enumerate(reference.logits):
            if generated[:step] != reference.tokens[:step]:
                break
            private = engine.combine((parts["client"][step], parts["server"][step]))
            errors.append(float((private - expected).abs().max()))
        return CheckReport(
            max_abs_logit_error=max(errors),
            median_abs_logit_error=statistics.median(errors),
            tokens_match=generated == reference.tokens,
            tokens_compared=len(errors),
            tolerance=engine.tolerance,
        )


def _device(job: Job) -> str:
    """A GPU if the slot has one, in float64 as on the CPU; a cell of the engine `plain` needs it."""
    if not job.gpu or (job.engine != PlainEngine.name and not torch.cuda.is_available()):
        return "cpu"
    return "cuda"


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
