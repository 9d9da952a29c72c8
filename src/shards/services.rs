//! What every shard of the process shares.

use std::sync::Arc;

use super::writer::Writer;
use crate::account::Account;
use crate::avro::{Codec, Registry};
use crate::directory::Known;
use crate::kafka::KafkaClient;
use crate::progress::Board;
use crate::sync::OwnedAccount;

/// What every shard of the process shares.
#[derive(Clone)]
pub struct Services {
    pub kafka: KafkaClient,
    pub registry: Registry,
    pub codec: Codec,
    /// Milliseconds since 1970-01-01 UTC.
    pub clock: fn() -> i64,
    /// What long work is under way.
    pub progress: Board,
}

impl Services {
    /// An account of an acquisition, with what was restored of it.
    pub fn owned(&self, account: &Arc<Account>, known: Known, log: &Writer) -> OwnedAccount<Writer> {
        OwnedAccount { account: account.clone(), known, log: log.clone(), codec: self.codec.clone(), clock: self.clock }
    }
}
