"""What a cell costs, counted on shapes alone."""
