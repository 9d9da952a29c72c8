//! A person's request about an account, and its record on the `control` topic: who asked, when, and why.

use std::sync::Arc;

use clap::Args;

use super::failure::{Exit, Failure};
use crate::account::Account;
use crate::avro::Codec;
use crate::avro::wire::ControlRequest;
use crate::config::{AccountConfig, Config};
use crate::control::TEXT_BYTES_MAX;
use crate::kafka::KafkaClient;
use crate::kafka::blocking::blocking;
use crate::kafka::sender::send_one;
use crate::schedule::now_millis;
use crate::service::ServiceError;
use crate::shards::Services;

/// The arguments of every request.
#[derive(Debug, Args)]
pub struct Request {
    /// The account
    pub account: String,
    /// The person who asks, for the record
    #[arg(long, env = "USER", default_value = "unknown")]
    pub by: String,
    /// The reason of the request, for the record
    #[arg(long)]
    reason: Option<String>,
}

impl Request {
    /// # Errors
    /// A text that its reader would cut off.
    pub fn check(&self) -> Result<(), Failure> {
        let texts = [("--by", Some(&self.by)), ("--reason", self.reason.as_ref())];
        let long = texts.into_iter().find(|(_, text)| text.is_some_and(|text| text.len() > TEXT_BYTES_MAX));
        match long {
            Some((option, _)) => Err(Failure::new(
                Exit::Usage,
                format!("{option} is longer than {TEXT_BYTES_MAX} bytes; → shorten it, e.g. to the number of a ticket"),
            )),
            None => Ok(()),
        }
    }

    /// The configured account that the request names.
    ///
    /// # Errors
    /// As [`Request::check`], or the account is not configured.
    pub fn account(&self, config: &Config) -> Result<Arc<AccountConfig>, Failure> {
        self.check()?;
        let mut found = config.select(std::slice::from_ref(&self.account))?;
        found.pop().ok_or_else(|| Failure::new(Exit::Configuration, "no such account"))
    }
}

/// Writes the record of an action that this process carries out itself.
///
/// # Errors
/// Kafka does not acknowledge the record.
pub async fn record_request(
    services: &Services,
    account: &Account,
    action: &'static str,
    request: Request,
) -> Result<(), ServiceError> {
    send(&services.kafka, services.codec.clone(), account, action, None, request).await
}

/// Writes a request to the `control` topic.
///
/// # Errors
/// Kafka does not acknowledge the record.
pub async fn send(
    kafka: &KafkaClient,
    codec: Codec,
    account: &Account,
    action: &'static str,
    hold_id: Option<String>,
    request: Request,
) -> Result<(), ServiceError> {
    let Request { by, reason, .. } = request;
    let request = ControlRequest {
        account: account.name.clone(),
        action: action.to_owned(),
        hold_id,
        requested_by: by,
        requested_at: now_millis(),
        reason,
    };
    let record = codec.encode_control_request(&request).map_err(ServiceError::refused)?;
    let (kafka, partition) = (kafka.clone(), account.partition);
    blocking(move || send_one(&kafka, partition, &record)).await
}
