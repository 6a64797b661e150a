"""Pages to look at: one HTML file each that needs nothing else, no network and no script."""
