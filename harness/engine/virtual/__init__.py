"""The engine on a virtual clock: what users, routers and replicas do in a plan that is served without HTTP or waiting.

Who is in the next step and how long it takes is in `engine.model`; the engine in real time is `engine.realtime`.
"""
