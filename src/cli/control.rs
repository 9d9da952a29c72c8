//! `release`, `pause`, `resume`, `poll`: a record on the `control` topic saying who, when and why. Only the
//! owner of the account's shard writes anything else.

use clap::Args;

use super::{CONFIGURATION, DONE, FAILED, Failure, USAGE, print};
use crate::account::Account;
use crate::avro::wire::{ControlRequest, SyncStatus};
use crate::avro::{Codec, Decoder, Registry};
use crate::config::{AccountConfig, Config};
use crate::control::TEXT_BYTES_MAX;
use crate::directory::HoldId;
use crate::kafka::blocking::blocking;
use crate::kafka::read::{ReadRecord, read_to_end};
use crate::kafka::sender::send_one;
use crate::kafka::{KafkaClient, topics};
use crate::log::Topic;
use crate::mapping::text::clock;
use crate::schedule::now_millis;
use crate::service::ServiceError;
use crate::shards::Services;

#[derive(Debug, Args)]
pub(super) struct Who {
    /// The account
    pub account: String,
    /// Who asks, for the record
    #[arg(long, env = "USER", default_value = "unknown")]
    pub by: String,
    /// Why, for the record
    #[arg(long)]
    reason: Option<String>,
}

impl Who {
    /// # Errors
    /// A text that its reader would cut off.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let texts = [("--by", Some(&self.by)), ("--reason", self.reason.as_ref())];
        let long = texts.into_iter().find(|(_, text)| text.is_some_and(|text| text.len() > TEXT_BYTES_MAX));
        match long {
            Some((option, _)) => Err(Failure::new(
                USAGE,
                format!("{option} is longer than {TEXT_BYTES_MAX} bytes; → a shorter one, e.g. the number of a ticket"),
            )),
            None => Ok(()),
        }
    }
}

#[derive(Debug, Args)]
pub struct Release {
    #[command(flatten)]
    who: Who,
    /// The hold to release, as `run`, `plan` or this command without it names it
    #[arg(long, value_name = "HOLD")]
    hold: Option<String>,
}

#[derive(Debug, Args)]
pub struct Pause {
    #[command(flatten)]
    who: Who,
}

#[derive(Debug, Args)]
pub struct Resume {
    #[command(flatten)]
    who: Who,
}

#[derive(Debug, Args)]
pub struct Poll {
    #[command(flatten)]
    who: Who,
}

pub async fn release(config: &Config, options: Release) -> Result<u8, Failure> {
    let account = one(config, &options.who)?;
    let name = &account.account.name;
    let latest = latest(config, &account).await?;
    let open = latest.as_ref().filter(|latest| latest.status != "completed" && latest.released_by.is_none());
    let current = open.and_then(|latest| latest.hold_id.clone());
    let Some(hold) = options.hold else {
        let (Some(latest), Some(hold)) = (&latest, current) else {
            print(&format!("{name}: nothing is held"))?;
            return Ok(DONE);
        };
        let since = clock(latest.finished_at.unwrap_or(latest.started_at));
        print(&format!("{name}  held since {since} UTC: {}", latest.reason.as_deref().unwrap_or_default()))?;
        print(&format!("look:     scimtail plan {name}"))?;
        print(&format!("release:  scimtail release {name} --hold {hold}"))?;
        return Ok(DONE);
    };
    if HoldId::parse(&hold).is_none() {
        return Err(Failure::new(
            2,
            format!("`{hold}` is no hold id; → scimtail release {name} shows the current one"),
        ));
    }
    if current.as_deref() != Some(hold.as_str()) {
        let now =
            current.map_or_else(|| "nothing is held".to_owned(), |current| format!("the current hold is {current}"));
        return Err(Failure::new(FAILED, format!("{name}: {hold} is not held now ({now}); nothing was released")));
    }
    request(config, &account, "release", Some(hold), options.who).await
}

pub async fn pause(config: &Config, options: Pause) -> Result<u8, Failure> {
    let account = one(config, &options.who)?;
    request(config, &account, "pause", None, options.who).await
}

pub async fn resume(config: &Config, options: Resume) -> Result<u8, Failure> {
    let account = one(config, &options.who)?;
    request(config, &account, "resume", None, options.who).await
}

pub async fn poll(config: &Config, options: Poll) -> Result<u8, Failure> {
    let account = one(config, &options.who)?;
    request(config, &account, "poll", None, options.who).await
}

pub(super) fn one(config: &Config, who: &Who) -> Result<AccountConfig, Failure> {
    who.check()?;
    let mut found = config.select(std::slice::from_ref(&who.account))?;
    found.pop().ok_or_else(|| Failure::new(CONFIGURATION, "no such account"))
}

async fn request(
    config: &Config,
    account: &AccountConfig,
    action: &'static str,
    hold_id: Option<String>,
    who: Who,
) -> Result<u8, Failure> {
    topics::verify(&config.kafka).await?;
    let registry = Registry::new(&config.registry_url)?;
    let codec = Codec { ids: registry.ids(&config.kafka.topic_prefix, config.register).await? };
    send(&config.kafka, codec, &account.account, action, hold_id, who).await?;
    print(&format!(
        "{}: {action} is requested; it takes effect when the service (or the next run --once) reads it",
        account.account.name
    ))?;
    Ok(DONE)
}

/// Leaves the trace of what is carried out here and now.
///
/// # Errors
/// The record is not acknowledged.
pub(super) async fn record_request(
    services: &Services,
    account: &Account,
    action: &'static str,
    who: Who,
) -> Result<(), ServiceError> {
    send(&services.kafka, services.codec.clone(), account, action, None, who).await
}

async fn send(
    kafka: &KafkaClient,
    codec: Codec,
    account: &Account,
    action: &'static str,
    hold_id: Option<String>,
    who: Who,
) -> Result<(), ServiceError> {
    let request = ControlRequest {
        account: account.name.clone(),
        action: action.to_owned(),
        hold_id,
        requested_by: who.by,
        requested_at: now_millis(),
        reason: who.reason,
    };
    let record = codec.encode_control_request(&request).map_err(ServiceError::refused)?;
    let (kafka, partition) = (kafka.clone(), account.partition);
    blocking(move || send_one(&kafka, partition, &record)).await
}

/// The newest attempt's record of the account.
async fn latest(config: &Config, account: &AccountConfig) -> Result<Option<SyncStatus>, Failure> {
    let mut decoder = Decoder::of_reader(Registry::new(&config.registry_url)?);
    let (kafka, partition) = (config.kafka.clone(), account.account.partition);
    let key = format!("{}/latest", account.account.name);
    let found = blocking(move || {
        let mut newest = None;
        let each = |record: ReadRecord<'_>| {
            if record.key == Some(key.as_bytes()) {
                newest = record.value.and_then(|value| decoder.decode(Topic::Syncs, value).ok());
            }
            Ok(())
        };
        read_to_end(&kafka, &[Topic::Syncs], &[partition], each, |_| Ok(()))?;
        Ok(newest)
    });
    Ok(found.await?)
}
