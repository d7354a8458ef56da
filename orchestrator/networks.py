"""The links that an experiment asks for."""

from pydantic import BaseModel, ConfigDict, Field


class Network(BaseModel):
    """Links between the parties, with every value resolved."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="`none`, a preset, or a name of your own.")
    links: dict[str, dict[str, float]] = Field(
        default={}, description="Values by ordered pair, such as `client>server`."
    )


def parse_network(given: object) -> object:
    """A network from a name or a mapping."""
    if isinstance(given, Network):
        return given
    if isinstance(given, dict):
        links = {key: value for key, value in given.items() if key != "name"}
        return {"name": given.get("name", "custom"), "links": links.get("links", links)}
    return {"name": given}
