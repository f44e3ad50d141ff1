"""What `kdbench new` writes: a small distribution that is complete and passes."""
