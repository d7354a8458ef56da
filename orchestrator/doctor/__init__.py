"""Before a run: are the hosts fit for it, and what is to be fixed? One module a kind of check; see `examine`."""
