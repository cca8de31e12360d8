"""Azure LLM inference traces of 2023, 2024 and 2025: `TIMESTAMP,ContextTokens,GeneratedTokens`, a row a request.

2023 (Patel et al., "Splitwise", ISCA 2024): CRLF, no final newline, naive times with seven fraction digits.
2024 (Stojkovic et al., "DynamoLLM", HPCA 2025): times with a zone, six fraction digits or none.
2025 multimodal (Qiu et al., "ModServe", SoCC 2025): `T` and `Z` times and a column `NumImages`; images are
ignored, which the notices say.
All at github.com/Azure/AzurePublicDataset, CC-BY-4.0.
"""

from pathlib import Path

from tailgate.workloads.traces.formats.csv_stream import batches, header, timestamps_ns, whole_numbers
from tailgate.workloads.traces.rows import Faults, Reader, Rows

_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_IMAGES = "NumImages"


def read(file: Path, faults: Faults) -> Reader:
    """The requests of an Azure trace, in file order, in bounded memory."""
    with_images = 0
    wanted = [*_COLUMNS, _IMAGES] if _IMAGES in header(file) else list(_COLUMNS)
    for batch in batches(file, wanted, faults):
        at_ns, good = timestamps_ns(batch, "TIMESTAMP", faults)
        prompt, good_prompt = whole_numbers(batch, "ContextTokens", faults, least=1)
        output, good_output = whole_numbers(batch, "GeneratedTokens", faults)
        good &= good_prompt & good_output
        if _IMAGES in wanted:
            images, good_images = whole_numbers(batch, _IMAGES, faults)
            good &= good_images
            with_images += int((images > 0).sum())
        yield Rows(at_ns, prompt, output).take(good)
    if with_images:
        faults.notices.append(f"{file.name}: {with_images:,} requests had images, which are ignored")
