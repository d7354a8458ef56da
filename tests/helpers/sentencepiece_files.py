"""Vocabularies of SentencePiece, written as its own files and as facts of GGUF."""

from pathlib import Path
from typing import Any

import gguf
from transformers.convert_slow_tokenizer import import_protobuf

from parties.models.spm import BYTE, CONTROL, NORMAL, UNKNOWN, USER

BYTES = [(f"<0x{value:02X}>", 0.0, BYTE) for value in range(256)]
LETTERS = [(letter, -50.0 - place, NORMAL) for place, letter in enumerate("▁abcdefghijklmnopqrstuvwxyz.,\u00e9")]
WORDS = ["th", "▁th", "▁the", "▁a", "an", "▁an", "and", "▁and", "er", "in", "▁in", "ing", "ed", "▁on", "re"]
PIECES = [
    ("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL), ("<|user|>", 0.0, USER), *BYTES,
    *((word, -float(place), NORMAL) for place, word in enumerate(WORDS)), *LETTERS,
]  # fmt: skip
"""Text, score and type of each piece; those of merged pairs fall with their rank, as in trained files."""


def write_model(path: Path, *, model_type: int = 2, prefix: bool = True, trimmed: bool = False) -> Path:
    proto = import_protobuf().ModelProto()
    for text, score, kind in PIECES:
        proto.pieces.add(piece=text, score=score, type=kind)
    proto.trainer_spec.model_type = model_type
    proto.trainer_spec.byte_fallback = True
    proto.normalizer_spec.add_dummy_prefix = prefix
    proto.normalizer_spec.remove_extra_whitespaces = trimmed
    path.write_bytes(proto.SerializeToString())
    return path


def facts(**changes: Any) -> dict[str, Any]:
    texts, scores, kinds = zip(*PIECES, strict=True)
    return {
        "tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": list(texts), "tokenizer.ggml.scores": list(scores),
        "tokenizer.ggml.token_type": list(kinds), "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2,
        **{f"tokenizer.{key}": value for key, value in changes.items()},
    }  # fmt: skip


def add_facts(writer: gguf.GGUFWriter, given: dict[str, Any]) -> None:
    add = {bool: writer.add_bool, int: writer.add_uint32, str: writer.add_string, list: writer.add_array}
    for key, value in given.items():
        add[type(value)](key, value)
