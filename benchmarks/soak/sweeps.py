"""The experiments of the soak: sweeps of small cells, on loopback or on emulated hosts."""

_COMMON = """
name: soak
model: random:tiny-llama
prompt: {{random_tokens: true}}
new_tokens: 2
timeout_s: 20
cell_timeout_s: 120
seed: {seed}
"""

_LOCAL = """
engines: [plain, crypten, fss]
policies: [full, mpcache, h2o]
networks: [none, {name: near, rate_mbit: 500, delay_ms: 2}]
seq_lens: [24, 32]
"""

_LAB = """
engines: [fss]
policies: [full, mpcache]
networks: [none, {name: near, rate_mbit: 200, delay_ms: 5}]
seq_lens: [24]
repeats: 2
"""


def sweep(*, lab: bool, seed: int) -> str:
    """The experiment file of one round."""
    return _COMMON.format(seed=seed) + (_LAB if lab else _LOCAL)
