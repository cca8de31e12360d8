"""What the simulated GPUs draw: from nearly nothing when idle to the board's limit when they compute all the time.

A step that takes `d` seconds, of which its matrix products would fill a share `c` and its memory reads a share `m`,
draws on each GPU

    limit * min(1, 0.1 + 0.9 c + 0.33 m)

and an idle GPU a tenth of its limit. The shares of the limit are assumptions between published measurements: decoding,
which reads memory all the time, draws 137 to 300 W of an H200's 700 (Ma et al., "The illusion of power capping in LLM
decode", arXiv:2605.11999); the prompt phase comes near the limit (Patel et al., "Characterizing power management
opportunities for LLMs in the cloud", ASPLOS 2024).
"""

from dataclasses import dataclass
from typing import Final

from tailgate.harness.engine.model.step_law import StepShape
from tailgate.harness.engine.model.step_time import StepTime

_IDLE: Final = 0.1
_COMPUTING: Final = 0.9
_READING: Final = 0.33


@dataclass(slots=True)
class PowerMeter:
    """Adds up the time and the energy of steps. All figures are of one GPU; the GPUs of a model do the same."""

    step_time: StepTime
    limit_w: float
    busy_s: float = 0.0  # in which a step was running
    reading_s: float = 0.0  # in which memory was being read, had nothing else held it up
    above_idle_j: float = 0.0

    @property
    def idle_w(self) -> float:
        return _IDLE * self.limit_w

    def stepped(self, shape: StepShape, seconds: float) -> None:
        """Count a step that took so long."""
        model = self.step_time
        compute = model.compute_seconds(shape) / seconds
        memory = model.memory_seconds(shape) / seconds
        share = min(1.0 - _IDLE, _COMPUTING * compute + _READING * memory)
        self.busy_s += seconds
        self.reading_s += seconds * min(1.0, memory)
        self.above_idle_j += self.limit_w * share * seconds

    def energy_j(self, since_start_s: float) -> float:
        """Energy since the engine's start."""
        return self.idle_w * since_start_s + self.above_idle_j
