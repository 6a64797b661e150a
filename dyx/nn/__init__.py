"""The dynamic layers, as they are trained, and how dyx reads them."""
