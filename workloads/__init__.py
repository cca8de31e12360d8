"""What is sent, and when: a workload's spec becomes a plan. Pure and seeded: no network, no clock."""
