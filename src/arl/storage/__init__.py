"""Object stores, the registry of released models, and signatures."""
