"""Features of single frames to heatmaps or coordinates."""
