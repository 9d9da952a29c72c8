//! Known, read back from the compacted topics of one partition.

use std::collections::HashMap;

use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::avro::wire::{GroupState, MembershipState, SyncStatus as SyncRecord, UserState};
use crate::avro::{Decoder, codec};
use crate::directory::{Entry, Known, Membership, Packed, Principal, StateKey, SyncStatus};
use crate::failpoint::{self, Point};
use crate::kafka::read::{Progress, ReadRecord, read_to_end, watermarks};
use crate::kafka::{KafkaClient, KafkaError};
use crate::pipeline::Account;
use crate::record::{Topic, state_digest};

/// Restores all `accounts` of a partition; call only after the shard is fenced. Blocks.
///
/// A record that cannot be understood stops its account, not the others. `stop` calls it off at the next record.
///
/// # Errors
/// Kafka cannot be read to its end, or it was called off.
pub fn restore(
    kafka: &KafkaClient,
    mut decoder: Decoder,
    partition: i32,
    acquisition: u64,
    accounts: Vec<Account>,
    progress: impl FnMut(Progress),
    stop: &CancellationToken,
) -> Result<HashMap<String, Result<Known, String>>, KafkaError> {
    let mut all: HashMap<String, Result<Known, String>> =
        accounts.iter().map(|account| (account.name.clone(), Ok(Known::new(acquisition)))).collect();
    let each = |record: ReadRecord<'_>| {
        if stop.is_cancelled() {
            return Err(KafkaError::Unreachable("called off".to_owned()));
        }
        let Some(key) = record.key.and_then(|key| std::str::from_utf8(key).ok()) else {
            warn!(record = record.address(), "skipped: a record without a text key belongs to no account");
            return Ok(());
        };
        let account = key.split('/').next().unwrap_or_default();
        // Accounts of this partition that are no longer configured keep their records and need no memory.
        if let Some(Ok(known)) = all.get_mut(account)
            && let Err(complaint) =
                take(known, &mut decoder, record.topic, key, record.value, record.header("ce_sequence"))
        {
            let reason = format!("{}: {complaint}", record.address());
            all.insert(account.to_owned(), Err(reason));
        }
        failpoint::hit(Point::RestoreMiddle);
        Ok(())
    };
    read_to_end(kafka, &Topic::STATE, &[partition], each, progress)?;
    // Requests from before an account existed are nobody's business.
    let control_end = watermarks(kafka, Topic::Control, partition)?.1;
    for account in &accounts {
        if let Some(known) = all.remove(&account.name) {
            all.insert(account.name.clone(), known.and_then(|known| complete(account, known, control_end)));
        }
    }
    Ok(all)
}

/// Takes one committed record into `known`; `sequence` is its `ce_sequence` header.
///
/// # Errors
/// Says what about the record is not understood.
pub fn take(
    known: &mut Known,
    decoder: &mut Decoder,
    topic: Topic,
    key: &str,
    value: Option<&[u8]>,
    sequence: Option<&str>,
) -> Result<(), String> {
    let Some(value) = value else {
        let sequence = sequence.and_then(|text| text.parse().ok());
        match StateKey::parse(key) {
            Some(StateKey::Principal(kind, id)) => known.remove_principal(kind, &id, sequence),
            Some(StateKey::Membership { member, group }) => known.remove_membership(&group, &member, sequence),
            // A tombstone in `syncs`: the account was retired.
            None if topic == Topic::Syncs => (known.completed, known.latest) = (None, None),
            None => return Err("a key of no known form".to_owned()),
        }
        return Ok(());
    };
    let digest = state_digest(key, value);
    match topic {
        Topic::Users => {
            let state: UserState = decoder.decode(topic, value)?;
            let (first, changed, sequence) = (state.first_seen_at, state.changed_at, state.sequence);
            let (since, walks) = (state.missing_since, state.missing_walks);
            put(known, key, state.into_principal(), (first, changed, sequence, since, walks), digest, None)
        }
        Topic::Groups => {
            let mut state: GroupState = decoder.decode(topic, value)?;
            let dangling = std::mem::take(&mut state.dangling).into_iter().map(Into::into).collect();
            let (first, changed, sequence) = (state.first_seen_at, state.changed_at, state.sequence);
            let (since, walks) = (state.missing_since, state.missing_walks);
            put(known, key, state.into_principal(), (first, changed, sequence, since, walks), digest, Some(dangling))
        }
        Topic::Memberships => {
            let state: MembershipState = decoder.decode(topic, value)?;
            let (group, member) = codec::membership_of(&state).ok_or("principal_type is neither user nor group")?;
            let MembershipState { direct, first_seen_at, sequence, .. } = state;
            known.put_membership(group, member, Membership { direct, first_seen_at, sequence, digest });
            Ok(())
        }
        Topic::Syncs => {
            let status = decoder.decode::<SyncRecord>(topic, value)?.into_status()?;
            match key.split_once('/') {
                None => known.completed = Some(status),
                Some((_, "latest")) => known.latest = Some(status),
                Some(_) => return Err("a key of no known form".to_owned()),
            }
            Ok(())
        }
        Topic::Events | Topic::Control => Ok(()),
    }
}

type Book = (i64, i64, i64, Option<i64>, i64);

fn put(
    known: &mut Known,
    key: &str,
    principal: Principal,
    (first_seen_at, changed_at, sequence, missing_since, missing_walks): Book,
    digest: u128,
    dangling: Option<Vec<crate::directory::Id>>,
) -> Result<(), String> {
    let Some(StateKey::Principal(kind, id)) = StateKey::parse(key) else {
        return Err("a key of no known form".to_owned());
    };
    if id != principal.id {
        return Err("key and value name different principals".to_owned());
    }
    let entry = Entry {
        packed: Packed::pack(&principal),
        raw: None,
        digest,
        first_seen_at,
        changed_at,
        sequence,
        missing_since,
        missing_walks: u32::try_from(missing_walks).unwrap_or(0),
    };
    known.put_principal(kind, id, entry, dangling);
    Ok(())
}

/// Checks what was read against what the newest `syncs` record says should be there.
///
/// # Errors
/// Says what is missing or differs: the account must not go on.
pub fn complete(account: &Account, mut known: Known, control_end: i64) -> Result<Known, String> {
    let Some(latest) = &known.latest else {
        if known.state_records() > 0 {
            return Err(format!(
                "{} state records but no syncs record: the checkpoint of {} is lost; nothing is published",
                known.state_records(),
                account.name
            ));
        }
        known.latest = Some(SyncStatus::initial(account.settings(), control_end));
        return Ok(known);
    };
    let (records, digest) = (known.state_records() as i64, known.state_digest());
    if (records, digest) != (latest.state_records, latest.state_digest) {
        return Err(format!(
            "the compacted topics hold {records} records of {}, its newest syncs record says {}{}; nothing is published",
            account.name,
            latest.state_records,
            if records == latest.state_records { " with another digest" } else { "" },
        ));
    }
    let completed = known.completed.as_ref().map_or(0, |completed| completed.sequence);
    known.forget_tombstones_until(completed);
    Ok(known)
}
