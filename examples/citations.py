"""Retrieval: every answer must cite its source, and one that does not counts as an error.

    tailgate run --locustfile examples/citations.py --target http://localhost:8000 --users 10 --duration 2m

What an answer must hold is yours to say: any Python will do. Here, the number of the passage.
"""

import itertools
import os

from locust import constant

from tailgate import LLMUser, task

PASSAGES = [f"[{k}] Measurement number {k} was {k * 7} units." for k in range(1, 9)]
# A model that was not trained to cite will not; the tests of this file have one that answers anything.
CITATION = os.environ.get("CITATION", "[")


class Reader(LLMUser):
    """Asks about one passage after the other."""

    wait_time = constant(0.1)

    def on_start(self):
        """A new reader."""
        self.turns = itertools.count()

    @task
    def ask(self):
        """A question about one of the passages."""
        passages = "\n".join(PASSAGES)
        question = f"{passages}\nQuestion {next(self.turns)}: what was measurement 3? Cite the passage."
        answer = self.client.chat(question, max_tokens=24)
        if answer.ok and CITATION not in answer.text:
            answer.fail("no citation")
