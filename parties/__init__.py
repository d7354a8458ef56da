"""What one party runs: links to the others, engines, the decoder, cache policies, the stage meter and the exporter."""
