"""Chinese text as words, by jieba: LongBench defines its Chinese scores by that package (arXiv 2308.14508)."""

import importlib.util
import logging
import string
import warnings
from collections.abc import Callable
from functools import cache
from tempfile import TemporaryDirectory

INSTALL = "pip install jieba"

_PUNCTUATION = frozenset(
    string.punctuation
    + "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣"  # noqa: RUF001
    + "､、〃》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏."  # noqa: RUF001
)
"""As in LongBench: the opening 《 is missing, the closing one is included."""


def available() -> bool:
    """Whether jieba is installed."""
    return importlib.util.find_spec("jieba") is not None


def words(text: str) -> list[str]:
    """All words, spaces and punctuation included."""
    return _cutter()(text)


def bare_words(text: str) -> list[str]:
    """Words in lower case without punctuation and spaces; empty ones are left out."""
    bare = ("".join(c for c in word.lower() if c not in _PUNCTUATION and not c.isspace()) for word in words(text))
    return [word for word in bare if word]


@cache
def _cutter() -> Callable[[str], list[str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # raised by its own imports
        import jieba
    jieba.setLogLevel(logging.WARNING)
    cutter = jieba.Tokenizer()
    with TemporaryDirectory() as folder:  # its default cache is a file in /tmp that any user can write
        cutter.tmp_dir = folder
        cutter.initialize()
    return cutter.lcut  # type: ignore[no-any-return]
