"""Builds tokenizers of the kind of SentencePiece (Llama 2, Mistral, Gemma, T5), from its own files or from GGUF.

SentencePiece merges the pair whose result has the best score, or takes the most likely sequence of pieces (unigram).
Source: Kudo and Richardson, https://arxiv.org/abs/1808.06226.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers.processors import TemplateProcessing

from parties.errors import ModelError

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)
"""Types of pieces, with the numbers that SentencePiece and GGUF share."""

_UNIGRAM, _BPE = 1, 2  # `trainer_spec.model_type`
_SPACE = "▁"


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """A vocabulary of SentencePiece.

    Attributes:
        tokens: Pieces in the order of their ids.
        scores: Score of each piece; a higher one is preferred.
        kinds: Type of each piece.
        unigram: Whether a text is the most likely sequence of pieces instead of a result of merges.
        prefix: Whether a space precedes every text.
        trimmed: Whether spaces at the ends, and all but one in a row, are left out.
        charsmap: Precompiled normalisation of characters, empty for none.
    """

    tokens: Sequence[str]
    scores: Sequence[float]
    kinds: Sequence[int]
    unigram: bool
    prefix: bool
    trimmed: bool = False
    charsmap: bytes = b""

    def tokenizer(self) -> Tokenizer:
        """The tokenizer, without any tokens around a text."""
        tokenizer = Tokenizer(self._unigram() if self.unigram else self._merges())
        steps: list[Any] = [normalizers.Precompiled(self.charsmap)] if self.charsmap else []
        if self.trimmed:
            steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
        steps += [normalizers.Prepend(_SPACE)] if self.prefix else []
        tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", _SPACE)])
        undo: list[Any] = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
        tokenizer.decoder = decoders.Sequence([*undo, decoders.Strip(" ", 1, 0)] if self.prefix else undo)
        add_marks(tokenizer, self.tokens, self.kinds)
        return tokenizer

    def _unigram(self) -> models.Model:
        unknown = self.kinds.index(UNKNOWN)
        return models.Unigram(list(zip(self.tokens, self.scores, strict=True)), unknown, BYTE in self.kinds)

    def _merges(self) -> models.Model:
        ids = {token: index for index, token in enumerate(self.tokens)}
        unknown = self.tokens[self.kinds.index(UNKNOWN)] if UNKNOWN in self.kinds else None
        made = {t for t, kind in zip(self.tokens, self.kinds, strict=True) if kind in (NORMAL, USER)}
        pairs = [
            (self.scores[ids[token]], token[:cut], token[cut:])
            for token in made
            for cut in range(1, len(token))
            if token[:cut] in made and token[cut:] in made
        ]
        pairs.sort(key=lambda pair: (-pair[0], ids[pair[1] + pair[2]], -len(pair[1])))
        return models.BPE(
            ids,
            [(left, right) for _, left, right in pairs],
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=BYTE in self.kinds,
        )


def add_marks(tokenizer: Tokenizer, tokens: Sequence[str], kinds: Sequence[int]) -> None:
    """Makes a tokenizer match control tokens, as special ones, and user-defined tokens before anything else."""
    marks = [(token, kind) for token, kind in zip(tokens, kinds, strict=True) if token]
    special = [AddedToken(token, special=True, normalized=False) for token, kind in marks if kind in (CONTROL, UNKNOWN)]
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token, kind in marks if kind == USER])


def surround(tokenizer: Tokenizer, before: Sequence[str], after: Sequence[str]) -> None:
    """Makes a tokenizer put special tokens around every whole text."""
    if before or after:
        ids = [(token, tokenizer.token_to_id(token)) for token in dict.fromkeys([*before, *after])]
        tokenizer.post_processor = TemplateProcessing(single=[*before, "$A", *after], special_tokens=ids)


def read_tokenizer_model(path: Path, config: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer in a file of SentencePiece.

    Args:
        path: The file, `tokenizer.model`.
        config: The content of `tokenizer_config.json`, which adds tokens and says which ones surround a text.

    Raises:
        ModelError: It is not such a file.
    """
    content = path.read_bytes()
    if _is_tiktoken(content):
        raise ModelError(
            f"{path} is a vocabulary of tiktoken, without the rule that splits a text into words; put the model's "
            f"tokenizer.json next to it"
        )
    try:
        proto = _parse(content)
    except Exception as error:  # of protobuf, whose exceptions differ between versions
        raise ModelError(f"{path} is not a file of SentencePiece, or truncated; fetch it again") from error
    kind = proto.trainer_spec.model_type
    if not proto.pieces or kind not in (_UNIGRAM, _BPE):
        raise ModelError(
            f"{path}: {len(proto.pieces)} pieces of model type {kind}; supported: {_UNIGRAM} (unigram) and {_BPE} "
            f"(BPE); save the model's fast tokenizer there (tokenizer.save_pretrained)"
        )
    pieces = Pieces(
        tokens=[piece.piece for piece in proto.pieces],
        scores=[piece.score for piece in proto.pieces],
        kinds=[piece.type for piece in proto.pieces],
        unigram=kind == _UNIGRAM,
        prefix=proto.normalizer_spec.add_dummy_prefix,
        trimmed=proto.normalizer_spec.remove_extra_whitespaces,
        charsmap=proto.normalizer_spec.precompiled_charsmap,
    )
    tokenizer = pieces.tokenizer()
    _extend(tokenizer, config, path)
    ends = [proto.trainer_spec.bos_id, proto.trainer_spec.eos_id]
    bos, eos = ([pieces.tokens[index]] if 0 <= index < len(pieces.tokens) else [] for index in ends)
    surround(tokenizer, bos if config.get("add_bos_token", True) else [], eos if config.get("add_eos_token") else [])
    return tokenizer


def _parse(content: bytes) -> Any:
    from transformers.convert_slow_tokenizer import import_protobuf  # slow to import, and rarely needed

    proto = import_protobuf().ModelProto()
    proto.ParseFromString(content)
    return proto


def _is_tiktoken(content: bytes) -> bool:
    """Whether a file has lines of a token in base64 and its rank, as Meta publishes Llama 3's."""
    token, _, rank = content[:200].partition(b"\n")[0].partition(b" ")
    try:
        return rank.isdigit() and bool(base64.b64decode(token, validate=True))
    except binascii.Error:
        return False


def _extend(tokenizer: Tokenizer, config: Mapping[str, Any], path: Path) -> None:
    """Adds the tokens that only `tokenizer_config.json` has, such as one for padding."""
    added = config.get("added_tokens_decoder", {})
    for index, given in sorted((int(index), given) for index, given in added.items()):
        content = given["content"]
        tokenizer.add_tokens(
            [AddedToken(content, special=bool(given.get("special")), normalized=bool(given.get("normalized")))]
        )
        if tokenizer.token_to_id(content) != index:
            raise ModelError(
                f"{path}: tokenizer_config.json gives a token the id {index}, which is not the next one; save the "
                f"model's fast tokenizer there (tokenizer.save_pretrained)"
            )
