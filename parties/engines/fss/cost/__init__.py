"""The cost of a cell, counted on shapes alone."""
