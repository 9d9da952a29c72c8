//! The spans in which shards and accounts do their work: every log line in them names its shard and its account.
//!
//! They have the level of errors, because a filter that lets a line pass must let its context pass too.

use tracing::{Span, error_span};

/// Around everything that is done for one shard, from the fence to the end of its producer.
pub fn shard(partition: i32) -> Span {
    error_span!("shard", partition)
}

/// Around everything that is done for one account of a shard; opened inside the shard's span.
pub fn account(name: &str) -> Span {
    error_span!("account", account = name)
}
