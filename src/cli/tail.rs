//! `tail`: events from Kafka as lines.

use std::collections::HashSet;
use std::ops::ControlFlow;

use clap::{Args, ValueEnum};
use rdkafka::topic_partition_list::Offset;
use tokio::sync::mpsc;

use super::{DONE, Failure, account_width, print};
use crate::avro::wire::ChangeEvent;
use crate::avro::{Decoder, Registry};
use crate::config::Config;
use crate::kafka::KafkaError;
use crate::kafka::read::{ReadRecord, follow, read_to_end};
use crate::mapping::text;
use crate::record::Topic;
use crate::shards::blocking;

/// Lines waiting for whoever reads them.
const LINES: usize = 1_024;

#[derive(Debug, Args)]
pub struct Options {
    /// Only these accounts [default: all configured]
    #[arg(long = "account", value_name = "ACCOUNT")]
    accounts: Vec<String>,
    /// Start at the oldest event that Kafka keeps, not at the next one
    #[arg(long)]
    from_beginning: bool,
    /// End at the last event there is now
    #[arg(long)]
    exit: bool,
    /// Form of the lines
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Text,
    Json,
}

impl Format {
    pub fn line(self, event: &ChangeEvent, account_width: usize) -> String {
        match self {
            Format::Text => text::line(event, account_width),
            Format::Json => serde_json::to_string(event).unwrap_or_default(),
        }
    }
}

pub async fn tail(config: &Config, options: Options) -> Result<u8, Failure> {
    let accounts = config.select(&options.accounts)?;
    let names: HashSet<String> = accounts.iter().map(|config| config.account.name.clone()).collect();
    let mut partitions: Vec<i32> = accounts.iter().map(|config| config.account.partition).collect();
    partitions.sort_unstable();
    partitions.dedup();

    let mut decoder = Decoder::new(None, Registry::new(&config.registry_url)?);
    let (lines, mut printed) = mpsc::channel::<String>(LINES);
    let (kafka, format, width) = (config.kafka.clone(), options.format, account_width(config));
    let mut take = move |record: &ReadRecord<'_>| -> bool {
        let Some(value) = record.value else { return true };
        match decoder.decode::<ChangeEvent>(Topic::Events, value) {
            Ok(event) if names.contains(&event.account) => lines.blocking_send(format.line(&event, width)).is_ok(),
            Ok(_) => true,
            Err(complaint) => {
                anstream::eprintln!("{}: {complaint}; skipped", record.address());
                true
            }
        }
    };
    let (exit, from_beginning) = (options.exit, options.from_beginning);
    let reading = async {
        blocking(move || {
            if exit {
                if !from_beginning {
                    return Ok(());
                }
                let each = |record: ReadRecord<'_>| {
                    if take(&record) { Ok(()) } else { Err(KafkaError::Refused(String::new())) }
                };
                return read_to_end(&kafka, &[Topic::Events], &partitions, each, |_| {});
            }
            let start = if from_beginning { Offset::Beginning } else { Offset::End };
            let from: Vec<(i32, Offset)> = partitions.iter().map(|partition| (*partition, start)).collect();
            follow(&kafka, Topic::Events, &from, |record| {
                let open = record.as_ref().is_none_or(&mut take);
                Ok(if open { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
            })
        })
        .await
    };
    let printing = async {
        while let Some(line) = printed.recv().await {
            print(&line)?;
        }
        Ok::<(), Failure>(())
    };
    tokio::pin!(reading);
    tokio::select! {
        result = printing => result?,
        result = &mut reading => {
            result?;
            while let Ok(line) = printed.try_recv() {
                print(&line)?;
            }
        }
    }
    Ok(DONE)
}
