"""What a gate writes besides its runs: its folder's documents first. What can't be written is told, no more."""

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tailgate.harness.experiments.core.outputs import require_writable, write_each
from tailgate.reports.documents.gate import history as gate_history
from tailgate.reports.documents.gate import write
from tailgate.reports.documents.gate.history import Entry
from tailgate.reports.documents.gate.write import junit, markdown
from tailgate.reports.rundir.json_files import write_atomic
from tailgate.reports.verdicts.gate.policy import Policy
from tailgate.reports.verdicts.gate.result import Verdict
from tailgate.workloads.common.errors import UserError


@dataclass(frozen=True)
class GateOutputs:
    """Where it goes."""

    junit: Path | None
    markdown: Path | None
    history: Path | None  # the file of earlier verdicts, for the trend
    remember: bool  # whether this verdict is appended to them; a folder that is judged again is there already

    def check(self) -> None:
        """Refuse files that can't be written, and a history with a damaged line."""
        for path, flag in ((self.junit, "--junit"), (self.markdown, "--markdown")):
            if path is not None:
                require_writable(path, flag)
        if self.history is not None:
            gate_history.read(self.history)
            if self.remember:
                require_writable(self.history, "history", makes_folders=True)

    def write(self, verdict: Verdict, folder: Path | None) -> list[str]:
        """Write it; one message for each part that could not be written after all."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        new = [gate_history.entry_of(verdict, now)] if self.remember and verdict.verdict != "INVALID" else []
        steps: list[Callable[[], None]] = []
        if folder is not None:
            steps.append(lambda: _documents(verdict, folder, self.history, new))
        if (xml := self.junit) is not None:
            steps.append(lambda: write_atomic(xml, junit(verdict).encode()))
        if (text := self.markdown) is not None:
            steps.append(lambda: write_atomic(text, markdown(verdict).encode()))
        steps.append(lambda: write.write_step_summary(verdict))
        if (history := self.history) is not None and new:
            steps.append(lambda: gate_history.append(history, new[0]))
        return write_each(steps)


def history_of(policy: Policy, policy_file: Path, asked: Path | None) -> Path | None:
    """The file of earlier verdicts: the flag's, or the policy's, which is relative to the policy's own folder."""
    if asked is not None or policy.history is None:
        return asked
    return policy_file.resolve().parent / policy.history


def _documents(verdict: Verdict, folder: Path, history: Path | None, new: Sequence[Entry]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"can't be made: {error.strerror}", where=str(folder)) from error
    write.write_all(verdict, folder, [*(gate_history.read(history) if history else []), *new])
