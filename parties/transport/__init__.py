"""Bytes between parties: framed TCP links, how parties meet, mutual TLS."""
