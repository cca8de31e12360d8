"""Tests of Tailgate: unit (no process, no port), system (the rest), browser, vllm; bench; kit for all of them."""
