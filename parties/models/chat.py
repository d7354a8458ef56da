"""Chat templates: the text that a model was trained to see for a list of messages."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from parties.errors import ModelError, PromptError
from parties.messages import Message
from parties.models.config import read_json
from parties.text_file import Unreadable, read_text

NO_TEMPLATE = (
    "the model has no chat template; take a model that was trained for chats, or put its template next to its "
    "tokenizer as chat_template.jinja"
)


@dataclass(frozen=True)
class ChatTemplate:
    """A model's chat template.

    It is a program of the server that runs at the client, on the client's prompt: transformers runs it in Jinja's
    sandbox, where it can neither read files nor reach the network. Its output is tokenised at the client.

    Attributes:
        template: Jinja source.
        tokens: Special tokens that templates use by name, such as `bos_token`.
    """

    template: str
    tokens: Mapping[str, str]

    def render(self, messages: Sequence[Message]) -> str:
        """The text of a chat, up to where the model's answer begins.

        Raises:
            PromptError: The template refuses these messages. The reason is given only in the template's own words.
        """
        from transformers.utils.chat_template_utils import render_jinja_template  # slow to import, and rarely needed

        chat = [message._asdict() for message in messages]
        try:
            (text,), _ = render_jinja_template(
                [chat], chat_template=self.template, add_generation_prompt=True, **self.tokens
            )
        except Exception as error:  # noqa: BLE001 - a template may fail in any way
            reason = f": {error}" if str(error) in self.template else ""
            raise PromptError(
                f"the model's chat template does not accept these messages{reason}; change them"
            ) from None
        return str(text)

    def to_json(self) -> dict[str, Any]:
        """Everything, for another party."""
        return asdict(self)


def read_chat(folder: Path) -> ChatTemplate | None:
    """The chat template of a model folder, if it has one.

    Raises:
        ModelError: A file cannot be read.
    """
    config = optional_json(folder / "tokenizer_config.json")
    named = optional_json(folder / "special_tokens_map.json") | config
    tokens = {key: value.get("content") if isinstance(value, dict) else value for key, value in named.items()}
    known = {key: value for key, value in tokens.items() if key.endswith("_token") and isinstance(value, str)}
    template = _template(folder, config)
    return None if template is None else ChatTemplate(template, known)


def optional_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, empty if there is no file."""
    return read_json(path) if path.exists() else {}


def _template(folder: Path, config: Mapping[str, Any]) -> str | None:
    """In a file of its own since transformers 4.51, before that in the configuration, alone or one of several."""
    path = folder / "chat_template.jinja"
    if path.exists():
        try:
            return read_text(path)
        except Unreadable as error:
            raise ModelError(f"cannot read {path}: {error}; fetch the model again") from None
    given = config.get("chat_template") or optional_json(folder / "chat_template.json").get("chat_template")
    if isinstance(given, list):
        given = next((one.get("template") for one in given if one.get("name") == "default"), None)
    return given if isinstance(given, str) else None
