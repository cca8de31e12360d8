"""What an injector writes down: its requests' records and how it went itself, spooled as it goes along."""

from pathlib import Path
from typing import Any, Final, Protocol

from tailgate.loadgen.records import CLIENT_SCHEMA, SPOOL_SCHEMA
from tailgate.loadgen.spool import Spool
from tailgate.workloads.common.errors import UserError

# Records wait until there are so many (or for a moment): a flush of 200 rows costs about half a millisecond.
_FLUSH_ROWS: Final = 200


class Writer(Protocol):
    """What keeps rows for a while."""

    def flush(self) -> object:
        """Write them; an OSError if that can't be done."""
        ...

    def close(self) -> None:
        """Write the rest and the end."""
        ...


class Recorder:
    """The spools of one injector.

    Raises:
        UserError: they can't be opened.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self.failure: str | None = None
        try:
            self._records = Spool(folder / f"injector-{number}.arrows", SPOOL_SCHEMA)
            self._client = Spool(folder / f"client-{number}.arrows", CLIENT_SCHEMA)
        except OSError as error:
            raise UserError(f"can't write records: {error.strerror}", where=str(folder)) from error
        self._writers: list[Writer] = [self._records, self._client]

    def add_writer(self, writer: Writer) -> None:
        """Somebody else's rows, written before the records that refer to them."""
        self._writers.insert(0, writer)

    def ended(self, record: tuple[Any, ...]) -> bool:
        """A request's record (SPOOL_SCHEMA); whether it is time to flush."""
        self._records.add(record)
        return len(self._records) >= _FLUSH_ROWS

    def interval(self, row: tuple[Any, ...]) -> None:
        """A row of the injector's own conduct (CLIENT_SCHEMA)."""
        self._client.add(row)

    def flush(self) -> str | None:
        """Put everything so far on disk; why that can't be done, the first time it can't."""
        try:
            for writer in self._writers:
                writer.flush()
        except OSError as error:
            if self.failure is None:
                self.failure = f"can't write records: {error.strerror}"
                return self.failure
        return None

    def close(self) -> None:
        """The spools' proper end: by it those of a killed injector are told apart. None if something is missing."""
        if self.failure is None:
            for writer in self._writers:
                writer.close()
