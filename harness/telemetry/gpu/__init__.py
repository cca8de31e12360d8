"""GPU figures from NVML or DCGM, sampled in a process of their own."""
