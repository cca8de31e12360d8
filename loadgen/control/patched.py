"""Imported first of all by processes of Locust's: sockets become gevent's, as Locust has them when it is imported."""

from gevent import monkey

monkey.patch_all()
