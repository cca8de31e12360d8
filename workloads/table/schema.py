"""The plan's columns: what is to be sent, and when. One row per request.

This is the contract between `workloads` (which writes plans) and everything to its right.
Times are integer nanoseconds from the run's start; lengths are tokens of the target's tokenizer.
"""

import pyarrow as pa

PLAN_SCHEMA = pa.schema(
    [
        pa.field("index", pa.int64(), nullable=False),
        # null in a closed loop (the user decides) and for a later turn of an open-loop session
        # (its predecessor's end plus `think_ns` decides).
        pa.field("at_ns", pa.int64()),
        pa.field("session", pa.int64(), nullable=False),
        pa.field("turn", pa.int32(), nullable=False),
        pa.field("think_ns", pa.int64(), nullable=False),
        pa.field("class", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("tenant", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("priority", pa.int32(), nullable=False),
        pa.field("prompt_tokens", pa.int32(), nullable=False),
        pa.field("output_tokens", pa.int32(), nullable=False),
        # Shared-prefix block ids; the same id is the same content in every request of the plan.
        pa.field("prefix_blocks", pa.list_(pa.uint64()), nullable=False),
        pa.field("content_seed", pa.uint64(), nullable=False),
        pa.field("phase", pa.dictionary(pa.int32(), pa.string()), nullable=False),
    ]
)

PHASES = ("warmup", "measure", "cooldown")
