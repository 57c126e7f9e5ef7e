"""Do the same with many files: in several processes where there are enough of them to be worth the start of those."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from torch.utils.data import DataLoader, Dataset

from nemo_cosmos.data.workers import close_readers, reader_options, usable_cores

T = TypeVar("T")

MANY = 256
"""Files from which on several processes share them."""
MOST_PROCESSES = 16
_AT_ONCE = 16
"""Files that a process is given together; fewer cost more messages, more make the end uneven."""


class _Results(Dataset[T | Exception], Generic[T]):
    def __init__(self, function: Callable[[Path], T], files: Sequence[Path]) -> None:
        self.function, self.files = function, list(map(str, files))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> T | Exception:
        try:
            return self.function(Path(self.files[index]))
        # Whatever else it is, the DataLoader raises it here again, with its traceback.
        except (ValueError, OSError, ImportError, MemoryError) as error:
            return error


def map_files(function: Callable[[Path], T], files: Sequence[Path]) -> Generator[T | Exception, None, None]:
    """What ``function`` gives for every file, in the order of the files, or the exception that it raises.

    Args:
        function: of a module, so that other processes can import it; its results and exceptions can be pickled.
        files: from :data:`MANY` on, processes on the cores of this rank share them. They end with the iterator.
    """
    processes = min(usable_cores(), MOST_PROCESSES)
    results = _Results(function, files)
    if len(files) < MANY or processes < 2:
        yield from (results[index] for index in range(len(results)))
        return
    loader = DataLoader(results, batch_size=_AT_ONCE, collate_fn=list, **reader_options(processes))
    try:
        for batch in loader:
            yield from batch
    except BaseException:  # Nobody waits for the files that are still at work.
        close_readers(loader, at_once=True)
        raise
    close_readers(loader)
