"""Runs one of our modules in a process of its own: ``python -E -P _child.py tailgate.MODULE ARGUMENTS``.

Neither the working directory nor PYTHONPATH, whose `sitecustomize` would run first, may decide what our processes
import. Python's `-P` and `-E` leave both out. What PYTHONPATH names is then put behind everything else, for machines
where it holds the libraries that we need. `import_paths` builds the command.
"""

import atexit
import gc
import os
import runpy
import sys

# Imports make many objects and hardly any garbage. Looking for some takes a tenth of an import's time, and at the end,
# when the memory goes back as a whole, another tenth.
gc.set_threshold(50_000, 20, 50)
atexit.register(gc.freeze)
_HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if _HOME not in sys.path:
    sys.path.insert(0, _HOME)
sys.path += [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path not in sys.path]
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
