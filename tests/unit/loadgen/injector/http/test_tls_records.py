"""Where a read of a TLS connection ends: at a record's end, or inside one, however the bytes are cut."""

from itertools import accumulate, pairwise

from hypothesis import given
from hypothesis import strategies as st

from tailgate.loadgen.injector.http.tls import TlsConnection


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8), st.data())
def test_records_are_followed_over_any_reads(lengths: list[int], data: st.DataObject) -> None:
    records = [b"\x17\x03\x03" + length.to_bytes(2, "big") + bytes(length) for length in lengths]
    stream, ends = b"".join(records), set(accumulate(map(len, records)))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(stream)), max_size=20)) | {len(stream)})
    connection = object.__new__(TlsConnection)
    connection._record_head, connection._record_left = b"", 0
    for start, end in pairwise([0, *cuts]):
        assert connection._ends_between_records(stream[start:end]) is (end in ends)
