"""The author half: from a dynamic network to a proven bundle. Needs Paddle."""
