"""Stored frames that a thread reads ahead into pinned memory, from which a GPU copies while its party goes on."""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO

import torch

from parties.engines.fss.dealing.storage import StorageError, StoredFrames
from parties.engines.fss.randomness.frames import LONGEST_BYTES

AT_ONCE_BYTES = 1 << 23
"""What the thread reads each time that it is woken up, at least."""
AHEAD = 8
"""How often it does so ahead of what is used: 76 MB at most."""
PINNED_FRAMES = 128
"""Frames for which there is memory from the start: those read ahead, and those of two segments of a 7B shape."""


class FramesAhead:
    """As `StoredFrames`, but each frame has memory of its own.

    Args:
        file: A file that `storage.write` has written.
    """

    def __init__(self, file: IO[bytes]) -> None:
        _ = [_pinned(LONGEST_BYTES) for _ in range(PINNED_FRAMES)]  # torch keeps it: to allocate holds up launches
        self._frames = StoredFrames(file, _pinned)
        self._thread = ThreadPoolExecutor(1, "stored randomness")
        self._ahead: deque[Future[list[memoryview | StorageError]]] = deque()
        self._read: deque[memoryview | StorageError] = deque()

    def next(self) -> memoryview:
        """See `StoredFrames`; waits for the thread.

        Raises:
            StorageError: The file is damaged or at its end.
        """
        if not self._read:
            while len(self._ahead) <= AHEAD:
                self._ahead.append(self._thread.submit(self._several))
            self._read.extend(self._ahead.popleft().result())
        if isinstance(frame := self._read.popleft(), StorageError):
            self.close()
            raise frame
        return frame

    def close(self) -> None:
        """See `StoredFrames`."""
        self._thread.shutdown(cancel_futures=True)
        self._frames.close()

    def _several(self) -> list[memoryview | StorageError]:
        """The next frames; an error stands for the first that cannot be read."""
        frames: list[memoryview | StorageError] = []
        size = 0
        while size < AT_ONCE_BYTES:
            try:
                frame = self._frames.next()
            except StorageError as error:
                return [*frames, error]
            frames.append(frame)
            size += len(frame)
        return frames


def _pinned(length: int) -> memoryview:
    return torch.empty(length, dtype=torch.uint8, pin_memory=torch.cuda.is_available()).numpy().data
