"""The command line, `mpcache-bench`: one module per command."""
