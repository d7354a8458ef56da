"""The command line, `mpcache-bench`: one module a command."""
