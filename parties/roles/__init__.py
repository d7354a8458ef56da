"""What each party of a cell does: client and server, dealer, and the referee that checks them."""
