"""Builds engines and dealers by name; imports an engine's libraries only when it is requested."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from parties.engines import ENGINES, Randomness
from parties.engines.base import Engine
from parties.errors import Unsupported
from parties.metering.meter import StageMeter
from parties.options import DEFAULTS, RunOptions
from parties.transport.mesh import Mesh

if TYPE_CHECKING:
    from parties.engines.crypten.engine import CrypTenEngine


class Dealer(Protocol):
    """Hands out correlated randomness until a run ends."""

    def serve(self, prefilled: Callable[[], None], policy: str) -> None:
        """Answers requests until the parties need no more randomness.

        Args:
            prefilled: Called once the prompt is through, and accounted for by the parties.
            policy: Name of the policy in the dealer's own job, the only code from elsewhere that it may run.
        """


class NoDealer:
    """The dealer of an engine whose computing parties need none."""

    def serve(self, prefilled: Callable[[], None], policy: str) -> None:
        """Returns at once."""


def engine_class(name: str, randomness: Randomness = "private", options: RunOptions = DEFAULTS) -> type[Engine]:
    """The class behind a name of `ENGINES`.

    Args:
        name: The engine.
        randomness: Generator of `crypten`; the other engines have no choice.
        options: The cell's engine options, of which `spu` determines the class of that engine.

    Raises:
        Unsupported: There is no such engine.
    """
    if name == "plain":
        from parties.engines.plain import PlainEngine

        return PlainEngine
    if name == "crypten":
        return _crypten(randomness)
    if name == "fss":
        from parties.engines.fss.engine import FssEngine

        return FssEngine
    if name == "spu":
        from parties.engines.spu.engine import SpuEngine

        return SpuEngine.of(options.spu)
    raise Unsupported(f"engine {name!r} does not exist; there are {', '.join(sorted(ENGINES))}")


def _crypten(randomness: Randomness) -> "type[CrypTenEngine]":
    from parties.engines.crypten.engine import CrypTenEngine, StockCrypTenEngine

    return StockCrypTenEngine if randomness == "stock" else CrypTenEngine


def make_engine(
    name: str,
    role: str,
    mesh: Mesh,
    meter: StageMeter,
    device: str = "cpu",
    randomness: Randomness = "private",
    options: RunOptions = DEFAULTS,
) -> Engine:
    """One computing party's engine, connected to its peers, on one of its class's `devices`."""
    if name == "crypten":
        return _crypten(randomness)(role, mesh, meter)
    if name == "fss":
        from parties.engines.fss.engine import FssEngine

        return FssEngine(role, mesh, meter, device)
    if name == "spu":
        from parties.engines.spu.engine import SpuEngine

        return SpuEngine.of(options.spu)(role, mesh, meter)
    raise Unsupported(f"engine {name!r} does not run between parties")


def make_dealer(
    name: str, mesh: Mesh, meter: StageMeter, randomness: Randomness = "private", device: str = "cpu"
) -> Dealer:
    """The dealer of an engine; with `crypten` it draws from the same `randomness` as the parties, on the CPU."""
    if name == "crypten":
        from parties.engines.crypten.provider import Dealer as CrypTenDealer

        return CrypTenDealer(mesh["client"], mesh["server"], meter, randomness)
    if name == "fss":
        from parties.engines.fss.dealing.dealer import Dealer as FssDealer

        return FssDealer(mesh["client"], mesh["server"], meter, device)
    if name == "spu":
        return NoDealer()
    raise Unsupported(f"engine {name!r} has no dealer")
