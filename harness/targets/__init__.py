"""Deployments under test, one small class each behind one protocol (`base.Target`)."""
