"""A coding assistant's users: short questions, a review now and then, and answers that are looked at.

    tailgate run --locustfile examples/copilot.py --target http://localhost:8000 --users 20 --duration 2m
    locust -f examples/copilot.py --host http://localhost:8000 --headless -u 20 -r 5 -t 2m

Under `tailgate run` every request is in the report, by class; `answer.fail` and a failed `assert` are errors there.
"""

from itertools import count

from locust import between

from tailgate import LLMUser, tag, task

SNIPPET = "def mean(values):\n    return sum(values) / len(values)\n"
numbers = count(1)


class Developer(LLMUser):
    """Asks short questions, three times as often as for a review."""

    weight = 3
    wait_time = between(0.05, 0.2)

    @tag("quick")
    @task(3)
    def ask(self):
        """One question."""
        answer = self.client.chat(f"Question {next(numbers)}: what does this do?\n{SNIPPET}", max_tokens=32)
        if answer.ok and answer.output_tokens == 0:
            answer.fail("an empty answer")

    @tag("long")
    @task
    def review(self):
        """A review, and a second turn that sends the first again."""
        history = [
            {"role": "system", "content": "You review code. Be brief."},
            {"role": "user", "content": f"Review {next(numbers)}:\n{SNIPPET}"},
        ]
        first = self.client.chat(history, max_tokens=48, kind="review")
        history += [
            {"role": "assistant", "content": first.text},
            {"role": "user", "content": "And for an empty list?"},
        ]
        second = self.client.chat(history, max_tokens=24, kind="review")
        assert second.prompt_tokens is None or second.prompt_tokens > (first.prompt_tokens or 0), "no history"


class Completer(LLMUser):
    """An editor's inline completion: one request a key stroke, no chat."""

    weight = 1
    wait_time = between(0.05, 0.1)

    @tag("quick")
    @task
    def complete(self):
        """One completion."""
        self.client.complete(f"# {next(numbers)}\n{SNIPPET}def median(values):\n", max_tokens=16, temperature=0)
