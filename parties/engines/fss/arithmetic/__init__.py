"""The ring, masked values, and the gates that everything is built of."""
