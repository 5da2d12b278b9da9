"""Training exits: data, features, heads and routers, written as exit packs. Only what trains imports torch."""
