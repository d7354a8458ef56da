"""The names of stages, and the phase that follows from a name."""

STAGES = (
    "embed", "norm", "qkv", "rope", "similarity", "topk", "gather", "scores", "softmax", "attend",
    "out_proj", "gate_up", "activation", "down", "lm_head", "argmax", "draft", "evict",
)  # fmt: skip
PHASES = ("online", "offline", "setup", "bench")
IDLE = "bench.idle"
RECORDING = "setup.recording"
"""The stage in which an engine records a segment of a token, to replay it in later tokens."""


def phase_of(stage: str) -> str:
    """The phase of a stage: the prefix of `offline.*`, `setup.*` (once per model) and `bench.*`, else `online`."""
    prefix, dot, _ = stage.partition(".")
    return prefix if dot and prefix in PHASES[1:] else "online"
