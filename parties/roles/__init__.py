"""The roles of a cell: client and server, dealer, and the referee that checks them."""
