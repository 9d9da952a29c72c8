//! Hash maps and sets of ids.

/// Hash maps and sets of ids, seeded against servers that choose ids to collide.
pub type Map<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;
pub type Set<K> = std::collections::HashSet<K, foldhash::fast::RandomState>;
