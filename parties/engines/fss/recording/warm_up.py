"""Compilation of all loops before a timed phase begins."""


def compile_all() -> None:
    """Compiles the loops and the tape machine, or loads them from the cache; later calls do nothing.

    The first time on a machine it takes some twenty seconds of a processor, later half a second.
    """
    from parties.engines.fss.kernels import loops, threads  # noqa: F401 - importing compiles
    from parties.engines.fss.recording import machine  # noqa: F401
