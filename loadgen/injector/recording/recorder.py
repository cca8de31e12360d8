"""Spools the records of an injector's requests and the statistics of the injector itself."""

from pathlib import Path
from typing import Any, Final

from tailgate.loadgen.records import CLIENT_SCHEMA, SPOOL_SCHEMA
from tailgate.loadgen.spool import Spool
from tailgate.workloads.common.errors import UserError

# Records wait until there are so many (or for a moment): a flush of 200 rows costs about half a millisecond.
_FLUSH_ROWS: Final = 200


class Recorder:
    """The spools of one injector. Raises a UserError if they can't be opened."""

    def __init__(self, folder: Path, number: int) -> None:
        self.failure: str | None = None
        try:
            self._records = Spool(folder / f"injector-{number}.arrows", SPOOL_SCHEMA)
            self._client = Spool(folder / f"client-{number}.arrows", CLIENT_SCHEMA)
        except OSError as error:
            raise UserError(f"can't write records: {error.strerror}", where=str(folder)) from error
        self._spools = [self._records, self._client]

    def write_first(self, spools: list[Spool]) -> None:
        """Flush these spools before the records that refer to their rows."""
        self._spools[:0] = spools

    def ended(self, record: tuple[Any, ...]) -> bool:
        """Keep a request's record (SPOOL_SCHEMA); returns whether it is time to flush."""
        self._records.add(record)
        return len(self._records) >= _FLUSH_ROWS

    def interval(self, row: tuple[Any, ...]) -> None:
        self._client.add(row)

    def flush(self) -> str | None:
        """Write everything so far to disk; returns why that failed, the first time it does."""
        try:
            for spool in self._spools:
                spool.flush()
        except OSError as error:
            if self.failure is None:
                self.failure = f"can't write records: {error.strerror}"
                return self.failure
        return None

    def close(self) -> None:
        """End the spools properly, which tells them from those of a killed injector, unless something is missing."""
        if self.failure is None:
            for spool in self._spools:
                spool.close()
