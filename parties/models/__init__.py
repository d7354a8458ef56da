"""Models: public specification, weights under canonical names, tokenizers."""

from parties.models.sources import load_spec
from parties.models.spec import ModelSpec
from parties.models.tokenizer import Tokenizer, load_tokenizer
from parties.models.weights import check_weights, load_weights

__all__ = ["ModelSpec", "Tokenizer", "check_weights", "load_spec", "load_tokenizer", "load_weights"]
