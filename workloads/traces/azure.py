"""Azure LLM inference traces of 2023 and 2024: `TIMESTAMP,ContextTokens,GeneratedTokens`, one row a request.

2023 (Patel et al., "Splitwise", ISCA 2024): CRLF, no final newline, naive times with seven fraction digits.
2024 (Stojkovic et al., "DynamoLLM", HPCA 2025): times with a zone, six fraction digits or none.
Both at github.com/Azure/AzurePublicDataset, CC-BY-4.0.
"""

from pathlib import Path

from workloads.traces.csvfile import batches, timestamps_ns, whole_numbers
from workloads.traces.rows import Faults, Reader, Rows

_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


def read(file: Path, faults: Faults) -> Reader:
    """The requests of an Azure trace, in file order, in bounded memory."""
    for batch in batches(file, _COLUMNS, faults):
        at_ns, good_at = timestamps_ns(batch, "TIMESTAMP", faults)
        prompt, good_prompt = whole_numbers(batch, "ContextTokens", faults, least=1)
        output, good_output = whole_numbers(batch, "GeneratedTokens", faults)
        good = good_at & good_prompt & good_output
        if good.all():
            yield Rows(at_ns, prompt, output)
        else:
            yield Rows(at_ns[good], prompt[good], output[good])
