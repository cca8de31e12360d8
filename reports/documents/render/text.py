"""What every medium does with a text, which may hold words of a server or a name that someone chose."""

from tailgate.loadgen.redact import LEAST_IN_DOCUMENTS, SECRETS
from tailgate.workloads.common.formatting import visible


def shown(text: str) -> str:
    """The text without secrets, and with nothing in it that a terminal or a page would obey."""
    return visible(SECRETS.mask(text, LEAST_IN_DOCUMENTS))
