"""Names of devices, work on one of them, its memory, and images brought to it while it computes.

Everything here also takes ``"cpu"``, for which it does nothing: the loops of a reconstruction or a refinement are
written once. CuPy is imported when a GPU is named, not before.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from verglas import _native
from verglas._cuda_arrays import device_index, session
from verglas.errors import DeviceError

# Of the free memory of a GPU: what CuPy's pool cannot use for want of one piece, and workspaces of its FFTs.
_USABLE = 0.85
_streams: dict[int, Any] = {}
# Files behind a stack of images are read by one thread at a time, whatever number of GPUs waits for them.
_reading = threading.Lock()
Piece = TypeVar("Piece")


def device_names(device: str) -> list[str]:
    """Devices that a ``device=`` argument names.

    Parameters
    ----------
    device : str
        ``"cpu"``; ``"cuda:0"``; several, ``"cuda:0,cuda:1"``; or ``"cuda"`` for every GPU there is.

    Returns
    -------
    list of str

    Raises
    ------
    DeviceError
        A name that is none, a device named twice, or a GPU that cannot be used (the message says why).

    Examples
    --------
    >>> from verglas._devices import device_names
    >>> device_names("cpu")
    ['cpu']
    """
    if device == "cpu":
        return ["cpu"]
    if device == "cuda":
        session("cuda:0")  # says why, if there is none
        return [f"cuda:{i}" for i in range(len(_native.load_cuda().state()["devices"]))]
    names = [name.strip() for name in device.split(",")] if isinstance(device, str) else [device]
    if len(names) > 1 and "cpu" in names:
        raise DeviceError(f"device {device!r}: the CPU does not share its work with GPUs; name one or the other")
    indices = [device_index(name) for name in names]
    if len(set(indices)) < len(indices):
        raise DeviceError(f"device {device!r}: names a GPU twice")
    for name in names:
        session(name)
    return [f"cuda:{i}" for i in indices]


def one_device(job: str, device: str) -> str:
    """The device that a job which uses one is given.

    Raises
    ------
    DeviceError
        Several, or one that cannot be used.

    Examples
    --------
    >>> from verglas._devices import one_device
    >>> one_device("class2d", "cpu")
    'cpu'
    """
    names = device_names(device)
    if len(names) > 1:
        raise DeviceError(f"{job}: works on one device, got {', '.join(names)}; name one of them")
    return names[0]


@contextmanager
def work_on(device: str) -> Iterator[None]:
    """Makes a GPU and a stream of its own current for this thread; what it refuses becomes a DeviceError.

    Examples
    --------
    >>> from verglas._devices import work_on
    >>> with work_on("cpu"):
    ...     pass
    """
    if device == "cpu":
        yield
        return
    cuda = session(device)
    with cuda.active():
        # One stream per GPU for good: CuPy's pool keeps what was freed for the stream it was taken on.
        if cuda.index not in _streams:
            _streams[cuda.index] = cuda.cupy.cuda.Stream(non_blocking=True)
        with _streams[cuda.index] as stream:
            yield
            stream.synchronize()


def memory_bytes(device: str) -> tuple[int, int]:
    """Bytes that may be taken on a GPU now, what CuPy's pool holds unused included; and the whole of its memory."""
    cuda = session(device)
    with cuda.active():
        free, total = cuda.cupy.cuda.runtime.memGetInfo()
        pool = cuda.cupy.get_default_memory_pool()
        return int(_USABLE * (free + pool.total_bytes() - pool.used_bytes())), int(total)


def release_memory(device: str) -> None:
    """Give back what CuPy's pool holds unused, so that it can be cut anew."""
    if device == "cpu":
        return
    gc.collect()  # what failed may still be held by the traceback of its error
    cuda = session(device)
    with cuda.active():
        cuda.cupy.get_default_memory_pool().free_all_blocks()


def to_device(value: Any, device: str) -> Any:
    """The array on a device, wherever it was; the same one for ``"cpu"`` and None."""
    if device == "cpu" or value is None:
        return value
    return session(device).cupy.asarray(value)


class Uploader:
    """Two buffers on a GPU and two of page-locked memory: one batch is filled and sent while the other is worked on.

    The copies run on a stream of their own. A buffer is filled again only when the work that was queued on it, up to
    the call of :meth:`done`, has been done.

    Parameters
    ----------
    device : str
        A GPU.
    shape : tuple of int
        Of the largest batch.
    """

    def __init__(self, device: str, shape: tuple[int, ...]) -> None:
        self.cuda = session(device)
        cupy = self.cuda.cupy
        self.shape = shape
        count = int(np.prod(shape))
        with self.cuda.active():
            self.stream = cupy.cuda.Stream(non_blocking=True)
            self.pinned = [
                np.frombuffer(cupy.cuda.alloc_pinned_memory(4 * count), np.float32, count).reshape(shape)
                for _ in range(2)
            ]
            self.buffers = [cupy.empty(shape, np.float32) for _ in range(2)]
            self.sent = [cupy.cuda.Event(disable_timing=True) for _ in range(2)]
            self.free = [cupy.cuda.Event(disable_timing=True) for _ in range(2)]
            for event in (*self.sent, *self.free):
                event.record()

    def send(self, turn: int, images: Any) -> None:
        """Copy images (n, ...) to buffer ``turn``; may be called from another thread than the one that computes."""
        slot, n = turn % 2, len(images)
        with self.cuda.active():
            self.sent[slot].synchronize()  # the page-locked buffer is read until then
            self.pinned[slot][:n] = images
            self.stream.wait_event(self.free[slot])
            self.buffers[slot][:n].set(self.pinned[slot][:n], stream=self.stream)
            self.sent[slot].record(self.stream)

    def wait_for_images(self, turn: int, n: int) -> Any:
        """The first ``n`` images of buffer ``turn``; the current stream waits for their arrival, the host does not."""
        slot = turn % 2
        self.cuda.cupy.cuda.get_current_stream().wait_event(self.sent[slot])
        return self.buffers[slot][:n]

    def release(self, turn: int) -> None:
        """All work on buffer ``turn`` has been queued on the current stream."""
        self.free[turn % 2].record(self.cuda.cupy.cuda.get_current_stream())


def upload_pieces(
    read: Callable[[Piece], Any], pieces: Sequence[Piece], device: str, shape: tuple[int, ...]
) -> Iterator[tuple[Piece, Any]]:
    """Each piece with its images on the device, in order; a GPU's next images are read and sent meanwhile.

    Parameters
    ----------
    read : callable
        From a piece to images (n, ...) float32 on the host.
    pieces : sequence
        What to read, in order.
    device : str
        ``"cpu"``: images are given as they were read.
    shape : tuple of int
        Of the largest piece's images.

    Yields
    ------
    piece, images
        Images on a GPU may be written to; they are gone when the next are asked for.
    """
    if device == "cpu":
        for piece in pieces:
            yield piece, read(piece)
        return
    if not pieces:
        return
    uploader = Uploader(device, shape)

    def bring(turn: int) -> int:
        with _reading:
            images = read(pieces[turn])
        uploader.send(turn, images)
        return len(images)

    with ThreadPoolExecutor(1) as ahead:
        coming: Future[int] = ahead.submit(bring, 0)
        for turn, piece in enumerate(pieces):
            n = coming.result()
            if turn + 1 < len(pieces):
                coming = ahead.submit(bring, turn + 1)
            yield piece, uploader.wait_for_images(turn, n)
            uploader.release(turn)
