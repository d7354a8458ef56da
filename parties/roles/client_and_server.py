"""The computing parties: the client, who owns the prompt, and the server, who owns the weights.

With a protocol of three parties the dealer's is the third; it owns nothing.
"""

import time
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from parties.decoding.batch import Batch, by_sequence
from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.drafts import Drafting
from parties.decoding.prefill import chunked, prompt_segments, protocol
from parties.decoding.program import run, staged
from parties.decoding.steps import decode_in_segments, fold, name_of, token_segments
from parties.engines.base import Engine
from parties.engines.factory import engine_class, make_engine
from parties.errors import Unsupported
from parties.heads.folding import Shapes, head_of, shapes_of
from parties.metering.meter import StageMeter
from parties.metering.process import release_memory
from parties.metering.progress import Progress
from parties.models import ModelSpec, Tokenizer, folding, load_spec, load_tokenizer, load_weights
from parties.roles.drafter import make_drafter
from parties.roles.job import Job
from parties.roles.prompt import prompts
from parties.roles.reports import PromptReport, RoleResult
from parties.transport.mesh import Mesh


@dataclass
class Session:
    """A model on an engine, kept from cell to cell."""

    key: tuple[Any, ...]
    engine: Engine
    spec: ModelSpec
    tokenizer: Tokenizer


class ComputingParty:
    """Client or server of any private engine, or the third party of one that has three."""

    def __init__(self, role: str, mesh: Mesh, meter: StageMeter, state: Progress) -> None:
        self.role, self.mesh, self.meter, self.state = role, mesh, meter, state
        self._session: Session | None = None

    @property
    def _has_summand(self) -> bool:
        """Whether values that the bench splits and combines have a part of this party's: a third party has none."""
        return self.role in ("client", "server")

    def run(self, job: Job) -> RoleResult:
        """Decodes one cell; returns this party's part of the result."""
        self.state.enter("loading")
        session = self._open(job)
        own = prompts(job, session.tokenizer, session.spec) if self.role == "client" else None
        decoder = Decoder(session.engine, session.spec, job.policy.build())
        self.state.enter("prefill")
        prompt: PromptReport | None = None
        if job.options.prefill == "mpc":
            batch, prompt = self._run_prompts(job, decoder, None if own is None else [tokens[:-1] for tokens in own])
        else:
            batch = self._receive_caches(session)
            with self.meter.stage("bench.prefill"):
                session.engine.prepare(decoder.workload(batch, job.new_tokens, job.options), batch)
                fold(decoder, batch)
        drafting = self._drafting(job, decoder, batch, own)
        last = None if own is None else [tokens[-1] for tokens in own]
        if drafting is None:
            session.engine.rehearse(token_segments(decoder, batch, last, job.options.argmax), batch)
        else:
            drafting.rehearse()
        self.state.enter("decode")
        start = time.perf_counter()
        if drafting is None:
            logits, generated = self._decode(job, decoder, batch, last)
        else:
            logits, generated = self._decode_drafts(drafting)
        decode_seconds = time.perf_counter() - start
        session.engine.finish()
        self.state.enter("check")
        self._report(session.engine, logits, generated)
        text = None
        if job.show_text and self.role == "client":
            text = "\n".join(session.tokenizer.decode(tokens) for tokens in by_sequence(generated))
        return RoleResult(
            tokens=job.new_tokens,
            decode_seconds=decode_seconds,
            pass_seconds=tuple(self.state.pass_seconds),
            recording_seconds=tuple(self.state.recording_seconds) if any(self.state.recording_seconds) else (),
            prefill=prompt,
            replayed_segments=session.engine.replayed_segments,
            interpreted_segments=sum(session.engine.interpreted_segments.values()),
            interpreted_because=dict(session.engine.interpreted_segments),
            drafted=() if drafting is None else drafting.drafted,
            accepted=() if drafting is None else drafting.accepted,
            text=text,
        )

    def _open(self, job: Job) -> Session:
        """The model on the engine, kept from an earlier cell, or loaded by the server and shared."""
        engine_type = engine_class(job.engine)
        if job.gpu and "cuda" not in engine_type.devices:
            raise Unsupported(f"engine {job.engine!r} computes on the CPU only; run it with gpu: false")
        engine_type.require()
        wanted = job.session
        if self._session is None or self._session.key != wanted:
            self._session = None  # frees the old model before the new one comes
            with self.meter.stage("bench.load"):
                spec, tokenizer, shapes, weights = self._model(job)
            device = "cuda" if job.gpu else "cpu"
            engine = make_engine(job.engine, self.role, self.mesh, self.meter, device, job.randomness, job.options)
            installing = engine.install(folding.folded_shapes(spec) | shapes, weights)
            run(staged(self.meter, "setup.weights", installing), engine.exchange)
            self._session = Session(wanted, engine, spec, tokenizer)
            del installing, weights
            release_memory()
        return self._session

    def _model(self, job: Job) -> tuple[ModelSpec, Tokenizer, Shapes, Mapping[str, torch.Tensor] | None]:
        """The server loads model and heads and sends the others their public facts; they never open them."""
        if self.role == "server":
            spec, tokenizer, weights = load_spec(job.model), load_tokenizer(job.model), load_weights(job.model)
            heads = head_of(job.policy.build(), spec, weights) if job.head else {}
            shapes = shapes_of(heads)
            card = {"spec": spec.to_json(), "tokenizer": tokenizer.to_json(), "heads": shapes}
            for peer in job.computing:
                if peer != self.role:
                    self.mesh[peer].send_json(card)
            return spec, tokenizer, shapes, ChainMap(heads, folding.Folded(spec, weights))  # type: ignore[arg-type] # is only read
        self.mesh["server"].await_peer()
        card = self.mesh["server"].receive_json()
        shapes = {name: tuple(shape) for name, shape in card["heads"].items()}
        spec = ModelSpec.from_json(card["spec"])
        return spec, Tokenizer.from_json(card["tokenizer"], spec.vocab), shapes, None

    def _receive_caches(self, session: Session) -> Batch:
        """This party's shares of the caches that the referee prefilled."""
        with self.meter.stage("bench.prefill"):
            self.mesh["referee"].await_peer()
            card = self.mesh["referee"].receive_json()
            return Batch([self._receive_cache(session, sequence) for sequence in card["sequences"]])

    def _receive_cache(self, session: Session, sequence: dict[str, Any]) -> Cache:
        referee, named = self.mesh["referee"], {}
        for name, shape in sequence["shapes"].items():
            share = referee.receive_tensor(tuple(shape), torch.int64) if self._has_summand else torch.zeros(*shape)
            named[name] = session.engine.adopt(share.long())
        return Cache.from_values(session.spec.n_layers, sequence["position"], named)

    def _run_prompts(
        self, job: Job, decoder: Decoder, own: Sequence[Sequence[int]] | None
    ) -> tuple[Batch, PromptReport]:
        """The prompts inside the computation, segment by segment: the caches, and what they took."""
        engine = decoder.engine
        with self.meter.stage("bench.prefill"):
            self.mesh["referee"].await_peer()
            card = self.mesh["referee"].receive_json()
        sizes = [chunked(decoder, tokens) for tokens in card["lengths"]]
        start = time.perf_counter()
        batch = Batch([Cache.empty(decoder.spec.n_layers) for _ in sizes])
        engine.prepare(decoder.workload(batch, job.new_tokens, job.options, sizes), batch)
        prompts: Sequence[Sequence[int] | None] = [None] * len(sizes) if own is None else own
        for cache, prompt, size in zip(batch.sequences, prompts, sizes, strict=True):
            for segment in prompt_segments(decoder, cache, prompt, size):
                engine.run_segment(segment, cache, name_of(segment))
        fold(decoder, batch)
        stages = protocol(self.meter.snapshot())
        took = PromptReport(seconds=time.perf_counter() - start, stages=stages)
        engine.prefilled()
        self.state.prompt_seconds = took.seconds
        return batch, took

    def _decode(
        self, job: Job, decoder: Decoder, batch: Batch, tokens: list[int] | None
    ) -> tuple[list[Any], list[list[int]]]:
        """The private part: every new token is decoded through the compressed caches.

        Returns:
            For each step the logits, [sequences, vocab], and, at the client, the next tokens.
        """
        kept: list[Any] = []
        generated: list[list[int]] = []
        self.state.prefilled(batch.cached)
        for _ in range(job.new_tokens):
            logits, tokens = decode_in_segments(decoder, batch, tokens, job.options.argmax)
            kept.append(logits)
            generated.append(tokens or [])
            numbers = decoder.spec.cached_numbers
            self.state.token(batch.cached, decoder.policy.attended, numbers, sequences=job.batch)
        return kept, generated

    @staticmethod
    def _drafting(job: Job, decoder: Decoder, batch: Batch, own: list[list[int]] | None) -> Drafting | None:
        """What decodes with drafts, if the job wants them."""
        if (draft := job.options.draft) is None:
            return None
        (cache,), (text,) = batch.sequences, own or [[]]
        drafter = None if own is None else make_drafter(draft, decoder.spec.vocab)
        return Drafting(decoder, cache, job.new_tokens, draft.count, job.options.argmax, drafter, list(text))

    def _decode_drafts(self, drafting: Drafting) -> tuple[list[Any], list[list[int]]]:
        """The result of `_decode`, several tokens in a pass."""
        cache, decoder, kept, generated = drafting.cache, drafting.decoder, list[Any](), list[list[int]]()
        self.state.prefilled(cache.tokens)
        for found in drafting.passes():
            kept += found.logits
            generated += [[] if token is None else [token] for token in found.tokens]
            self.state.token(
                cache.tokens,
                decoder.policy.attended,
                decoder.spec.cached_numbers,
                tokens=len(found.logits),
                drafted=drafting.drafted[-1],
                accepted=drafting.accepted[-1],
            )
        return kept, generated

    def _report(self, engine: Engine, logits: list[Any], generated: list[list[int]]) -> None:
        """Sends the referee, off the clock, the logits and tokens that it checks."""
        referee = self.mesh["referee"]
        with self.meter.stage("bench.check"):
            for value in logits:
                summand = engine.export(value)
                if self._has_summand:
                    referee.send_tensor(summand)
            if self.role == "client":
                referee.send_json({"tokens": generated})
