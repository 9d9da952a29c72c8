//! `release`, `pause`, `resume`, `poll`: each writes a request to the `control` topic. Only the owner of the account's
//! shard writes to the other topics.

use clap::Args;

use super::failure::{Exit, Failure};
use super::output::print;
use super::request::{Request, send};
use crate::avro::wire::SyncStatus;
use crate::avro::{Codec, Decoder};
use crate::config::{AccountConfig, Config};
use crate::connect;
use crate::directory::HoldId;
use crate::kafka::blocking::blocking;
use crate::kafka::read::{ReadRecord, read_to_end};
use crate::kafka::topics;
use crate::log::Topic;
use crate::mapping::text::clock;

#[derive(Debug, Args)]
pub struct Release {
    #[command(flatten)]
    request: Request,
    /// The hold to release, as `run`, `plan` or this command without --hold prints it
    #[arg(long, value_name = "HOLD")]
    hold: Option<String>,
}

#[derive(Debug, Args)]
pub struct Pause {
    #[command(flatten)]
    request: Request,
}

#[derive(Debug, Args)]
pub struct Resume {
    #[command(flatten)]
    request: Request,
}

#[derive(Debug, Args)]
pub struct Poll {
    #[command(flatten)]
    request: Request,
}

pub async fn release(config: &Config, options: Release) -> Result<Exit, Failure> {
    let account = options.request.account(config)?;
    let name = &account.account.name;
    let latest = latest(config, &account).await?;
    let open = latest.as_ref().filter(|latest| latest.status != "completed" && latest.released_by.is_none());
    let current = open.and_then(|latest| latest.hold_id.clone());
    let Some(hold) = options.hold else {
        let (Some(latest), Some(hold)) = (&latest, current) else {
            print(&format!("{name}: nothing is held"))?;
            return Ok(Exit::Done);
        };
        let since = clock(latest.finished_at.unwrap_or(latest.started_at));
        print(&format!("{name}  held since {since} UTC: {}", latest.reason.as_deref().unwrap_or_default()))?;
        print(&format!("look:     scimtail plan {name}"))?;
        print(&format!("release:  scimtail release {name} --hold {hold}"))?;
        return Ok(Exit::Done);
    };
    if HoldId::parse(&hold).is_none() {
        return Err(Failure::new(
            Exit::Usage,
            format!("`{hold}` is not a hold id; → scimtail release {name} shows the current one"),
        ));
    }
    if current.as_deref() != Some(hold.as_str()) {
        let now =
            current.map_or_else(|| "nothing is held".to_owned(), |current| format!("the current hold is {current}"));
        return Err(Failure::new(
            Exit::Failed,
            format!("{name}: {hold} is not held now ({now}); nothing was released"),
        ));
    }
    ask(config, &account, "release", Some(hold), options.request).await
}

pub async fn pause(config: &Config, options: Pause) -> Result<Exit, Failure> {
    let account = options.request.account(config)?;
    // Requests from before an account's first record are those of an earlier account of its name, and do not count.
    if newest(config, &account).await?.is_none() {
        let name = &account.account.name;
        let what = format!("{name} has no record yet, so that a pause would not be kept; nothing is paused");
        return Err(Failure::new(Exit::Failed, format!("{what}; → start `run`, and pause {name} then")));
    }
    ask(config, &account, "pause", None, options.request).await
}

pub async fn resume(config: &Config, options: Resume) -> Result<Exit, Failure> {
    let account = options.request.account(config)?;
    ask(config, &account, "resume", None, options.request).await
}

pub async fn poll(config: &Config, options: Poll) -> Result<Exit, Failure> {
    let account = options.request.account(config)?;
    ask(config, &account, "poll", None, options.request).await
}

async fn ask(
    config: &Config,
    account: &AccountConfig,
    action: &'static str,
    hold_id: Option<String>,
    request: Request,
) -> Result<Exit, Failure> {
    topics::verify(&config.kafka, false).await?;
    let registry = connect::registry(&config.registry)?;
    let codec = Codec { ids: registry.ids(&config.kafka.topic_prefix, config.register).await? };
    send(&config.kafka, codec, &account.account, action, hold_id, request).await?;
    print(&format!(
        "{}: {action} is requested; the service, or the next run --once, carries it out",
        account.account.name
    ))?;
    Ok(Exit::Done)
}

/// The newest attempt's record of the account, if it can be read.
async fn latest(config: &Config, account: &AccountConfig) -> Result<Option<SyncStatus>, Failure> {
    let mut decoder = Decoder::of_reader(connect::registry(&config.registry)?);
    let Some(newest) = newest(config, account).await? else { return Ok(None) };
    Ok(blocking(move || Ok(decoder.decode(Topic::Syncs, &newest).ok())).await?)
}

/// The bytes of that record.
async fn newest(config: &Config, account: &AccountConfig) -> Result<Option<Vec<u8>>, Failure> {
    let (kafka, partition) = (config.kafka.clone(), account.account.partition);
    let key = format!("{}/latest", account.account.name);
    let found = blocking(move || {
        let mut newest = None;
        let each = |record: ReadRecord<'_>| {
            if record.key == Some(key.as_bytes()) {
                newest = record.value.map(<[u8]>::to_vec);
            }
            Ok(())
        };
        read_to_end(&kafka, &[&[Topic::Syncs]], &[partition], each, |_| Ok(()))?;
        Ok(newest)
    });
    Ok(found.await?)
}
