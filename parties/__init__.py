"""The code of one party: links to the others, engines, the decoder, cache policies, the stage meter, the exporter."""
