"""What a running server is: probe, fingerprint, caches, HTTP versions. It starts nothing."""
