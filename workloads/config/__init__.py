"""What a person writes: the workload of a spec, request classes and the built-in profiles, validated.
Nothing is drawn or read from a trace here.
"""
