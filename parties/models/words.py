r"""Rules that split a text into words before the merges of a byte-level BPE, by GGUF's name for them.

The names are the values of `tokenizer.ggml.pre`. A rule is a list of regular expressions. Each is applied to the words
of the one before it: its matches become words, and so does the text between them. The expressions are those of the
models' own `tokenizer.json`; llama.cpp has approximations of some, which give the same words for ordinary texts.
"""

# ruff: noqa: RUF001 - punctuation of many scripts

from tokenizers import Regex, pre_tokenizers
from tokenizers.pre_tokenizers import PreTokenizer

_SUFFIX = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_GAPS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_LINES = r"\s*[\r\n]|\s+(?!\S)|\s+"
_SPACED = r"\p{L}\p{M}*(?: \p{L}\p{M}*)*"
_SYMBOLS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_PUNCTUATED = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
_CJK = "[一-龥぀-ゟ゠-ヿ]+"
_CODEPOINTS = "[一-龥ࠀ-一가-\ud7ff]+"


def _cl100k(digits: str, gaps: str = _GAPS) -> str:
    """The rule of GPT-4, with other groups of digits or other gaps."""
    return f"{_SUFFIX}|{_WORD}|{digits}|{_SYMBOLS}|{gaps}"


def _cased(suffix: str, digits: str, but: str = "") -> str:
    """The rule of GPT-4o: a word is upper case, then lower case.

    Args:
        suffix: Endings of words, such as `'s`, or nothing.
        digits: A group of digits.
        but: Letters that are not part of these words.
    """
    upper, lower = rf"[\p{{Lu}}\p{{Lt}}\p{{Lm}}\p{{Lo}}\p{{M}}{but}]", rf"[\p{{Ll}}\p{{Lm}}\p{{Lo}}\p{{M}}{but}]"
    first = r"[^\r\n\p{L}\p{N}]?"
    words = f"{first}{upper}*{lower}+{suffix}|{first}{upper}+{lower}*{suffix}"
    return rf"{words}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_GAPS}"


_HALVING = "|".join([rf"\s{{{2**power}}}(?!\S)" for power in range(9, 1, -1)] + [r"\s{1,2}(?!\S)|\s{1}"])
_CASED = r"[\p{Lu}\p{Ll}\p{Lt}]"  # deepseek-llm lists them one by one, without mathematical letters
_EXPRESSIONS: dict[tuple[str, ...], list[str]] = {
    (
        "llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano",
        "dbrx", "smaug-bpe", "glm4", "chatglm-bpe",
    ): [_cl100k(r"\p{N}{1,3}")],
    (
        "qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "stablelm2", "hunyuan", "solar-open", "grok-2",
    ): [_cl100k(r"\p{N}")],
    ("qwen35",): [
        rf"{_SUFFIX}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_GAPS}"
    ],
    ("minicpm5",): [r"\p{N}{1,3}", _cl100k(r"\p{N}+")],
    ("jais-2",): [_cl100k(r"\p{N}{1,3}", rf"\s*[\r\n]+|{_HALVING}")],
    ("ufakzeka",): [rf"{_WORD}|\p{{N}}|{_SYMBOLS}|{_GAPS}"],
    ("laguna",): [r"[^\n]+|\n+", _cl100k(r"\p{N}")],
    ("seed-coder",): [rf"{_SUFFIX}|{_WORD}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_GAPS}"],
    ("bailingmoe", "bailingmoe2", "llada-moe"): [
        rf"'(?i:[sdmt]|ll|ve|re)|{_WORD}|\p{{N}}|{_SYMBOLS}|{_LINES}"
    ],
    ("exaone-moe",): [
        rf"{_SUFFIX}|[^\r\n\p{{L}}\p{{N}}]?(?:{_SPACED})+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]?|{_LINES}"
    ],
    ("tekken",): [_cased("", r"\p{N}")],
    ("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"): [_cased(f"{_SUFFIX}?", r"\p{N}{1,3}")],
    ("tiny_aya", "cohere2moe"): [r"\d{1,3}(?=(?:\d{3})*\b)", _cased(f"{_SUFFIX}?", r"\p{N}{1,3}")],
    ("kimi-k2",): [r"\p{Han}+|" + _cased(f"{_SUFFIX}?", r"\p{N}{1,3}", but=r"&&[^\p{Han}]")],
    ("youtu",): [
        f"[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|{_CJK}",
        _cased(f"{_SUFFIX}?", r"\p{N}"),
    ],
    ("deepseek-llm",): [
        r"[\r\n]", rf"\s?{_CASED}+", r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$", _CODEPOINTS, r"\p{N}+",
    ],
    ("deepseek-coder",): [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CODEPOINTS, r"\p{N}"],
    ("deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"): [
        r"\p{N}{1,3}", _CJK, rf"{_PUNCTUATED}| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_GAPS}",
    ],
    ("spark2_5",): [
        r"\p{N}{1,3}", _CJK, rf"{_PUNCTUATED}| ?[\p{{P}}\p{{S}}]+|[\r\n]|\s+(?!\S)|\s+", r"\p{N}",
    ],
    ("falcon",): [r"[\p{P}$+<=>^~|`]+", _GPT2, "[0-9][0-9][0-9]"],
    ("default",): [r"[\p{P}$+<=>^~|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"],
    ("bloom", "poro-chat", "gpt3-finnish"): [r" ?[^(\s|.,!?…。，、।۔،)]+"],
    ("viking",): [r" ?[^(\s|.,!?…。，、।۔،)]+", r"\p{N}"],
}  # fmt: skip
_GPT2_NAMES = (
    "gpt-2", "phi-2", "jina-es", "jina-de", "gigachat", "jina-v2-es", "jina-v2-de", "a.x-4.0", "mellum", "modern-bert",
    "exaone4", "mpt", "olmo", "jais", "trillion", "granite-docling",
)  # fmt: skip
_DIGIT_NAMES = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2")


RULES = (*_GPT2_NAMES, *_DIGIT_NAMES, *(name for names in _EXPRESSIONS for name in names))
"""Every name that `word_rule` knows."""

_LLAMA3 = ("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano")
WHOLE_WORDS = (*_LLAMA3, "tekken", "youtu", "minicpm5")
"""Names whose tokenizers take a word that is a token as it is, whatever its merges give."""

WITH_BOS = (*_LLAMA3, "tekken")
"""Names whose tokenizers put a leading token before a text, unless the file says otherwise."""

COMPOSED = ("qwen2", "qwen35", "olmo")
"""Names whose tokenizers compose letters and their accents first (NFC), as their `tokenizer.json` does."""


def word_rule(name: str) -> PreTokenizer:
    """The pre-tokenizer of one of `RULES`."""
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if name in _GPT2_NAMES:
        return plain
    if name in _DIGIT_NAMES:
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), plain])
    expressions = next(expressions for names, expressions in _EXPRESSIONS.items() if name in names)
    splits = [pre_tokenizers.Split(Regex(one), behavior="isolated") for one in expressions]
    return pre_tokenizers.Sequence([*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
