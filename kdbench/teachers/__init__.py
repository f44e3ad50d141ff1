"""Teachers that are trained once, kept, shared, or brought from elsewhere."""
