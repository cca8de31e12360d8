"""Fingerprints of a deployment, and the container it runs in."""

from pathlib import Path

from tailgate.harness.targets.inspect.fingerprint import resolved_settings
from tailgate.harness.targets.launch.container import own_container


def test_what_a_launch_draws_anew_is_not_in_the_fingerprint():
    config = {
        "scheduler_config": {"max_num_seqs": 16, "runner_type": "generate", "policy": "fcfs"},
        "cache_config": {"num_gpu_blocks": 1234, "block_size": 16},
        "parallel_config": {"data_parallel_rpc_port": 29550, "tensor_parallel_size": 2},
        "speculative_config": None,
        "instance_id": "abc",
    }
    assert resolved_settings(config) == {
        "scheduler_config": {"max_num_seqs": 16, "policy": "fcfs"},
        "cache_config": {"block_size": 16},
        "parallel_config": {"tensor_parallel_size": 2},
    }


def test_a_container_is_recognised_and_which_one_it_is_told_apart(tmp_path: Path):
    assert own_container({}, tmp_path) == ({}, {})
    (tmp_path / ".dockerenv").touch()
    assert own_container({}, tmp_path) == ({"kind": "docker"}, {})
    namespace = tmp_path / "var/run/secrets/kubernetes.io/serviceaccount/namespace"
    namespace.parent.mkdir(parents=True)
    namespace.write_text("llm\n")
    pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "HOSTNAME": "vllm-0"}
    assert own_container(pod, tmp_path) == ({"kind": "kubernetes"}, {"pod": "vllm-0", "namespace": "llm"})
