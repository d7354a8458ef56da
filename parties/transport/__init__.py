"""Communication between parties: framed TCP links, rendezvous, mutual TLS."""
