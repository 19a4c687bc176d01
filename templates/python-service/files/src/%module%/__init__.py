<%= it.docstring(it.description) %>

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("<%= it.name %>")
except PackageNotFoundError:  # run from the source tree, not installed
    __version__ = "<%= it.version %>"
