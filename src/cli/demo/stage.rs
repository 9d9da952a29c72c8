//! What a demo consists of while it runs: the embedded world, the service as a process, and the reader of the topics.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::child::{self, Service};
use super::screen::Screen;
use super::seen::{Seen, follow_all};
use crate::avro::wire::{ChangeEvent, SyncStatus};
use crate::cli::failure::{Exit, Failure};
use crate::cli::services::services;
use crate::demo::World;
use crate::mapping::text;
use crate::shards::Services;

/// Without anything read back for so long after a sync was due, something is broken.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of a time with its date, before the time itself: everything in a demo is of today.
const DATE_BYTES: usize = "2026-11-21 ".len();

/// Why a demo does not go on.
#[derive(Debug)]
pub enum Ending {
    /// Ctrl-C, or another signal.
    Interrupted,
    Failed(Failure),
}

impl From<Failure> for Ending {
    fn from(failure: Failure) -> Ending {
        Ending::Failed(failure)
    }
}

pub fn failed(text: String) -> Failure {
    Failure::new(Exit::Failed, text)
}

/// The signals that end a demo in order.
pub struct Signals([Signal; 3]);

impl Signals {
    /// # Errors
    /// Signals cannot be handled.
    pub fn new() -> Result<Signals, Failure> {
        let handled = |kind| signal(kind).map_err(|error| failed(format!("signals cannot be handled: {error}")));
        Ok(Signals([
            handled(SignalKind::interrupt())?,
            handled(SignalKind::terminate())?,
            handled(SignalKind::hangup())?,
        ]))
    }

    pub async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

pub struct Stage {
    pub world: World,
    pub services: Services,
    pub service: Service,
    pub screen: Screen,
    signals: Signals,
    seen: mpsc::Receiver<Seen>,
    patience: Duration,
    /// The number of the newest event that was read, by account.
    reached: BTreeMap<String, i64>,
    /// False after a claim that is not true.
    pub holds: bool,
    account_width: usize,
    _ends_reader: DropGuard,
}

impl Stage {
    /// # Errors
    /// Something of it does not start.
    pub async fn open(seed: u64, interval: &str) -> Result<Stage, Failure> {
        let signals = Signals::new()?;
        let world = World::start(seed, interval).await.map_err(failed)?;
        let services = services(&world.config).await?;
        let ended = CancellationToken::new();
        let service = Service::start(&world)?;
        let seen = follow_all(&services, &partitions(&world), &ended);
        let longest = world.config.accounts.iter().map(|one| one.interval).max().unwrap_or_default();
        Ok(Stage {
            account_width: world.accounts.iter().map(|one| one.name().len()).max().unwrap_or(0),
            world,
            services,
            service,
            screen: Screen::new(),
            signals,
            seen,
            // An interval is longer by a tenth at most.
            patience: PATIENCE + longest + longest / 10,
            reached: BTreeMap::new(),
            holds: true,
            _ends_reader: ended.drop_guard(),
        })
    }

    /// Ends the service; the folder goes with the rest.
    pub async fn close(mut self) {
        self.service.stop().await;
    }

    /// Starts the service again after its end.
    ///
    /// # Errors
    /// The process does not start.
    pub fn restart(&mut self) -> Result<(), Failure> {
        self.service = Service::start(&self.world)?;
        Ok(())
    }

    pub fn partitions(&self) -> BTreeSet<i32> {
        partitions(&self.world)
    }

    /// The next record that is read back.
    pub async fn next(&mut self) -> Result<Seen, Ending> {
        let next = tokio::select! {
            () = self.signals.next() => return Err(Ending::Interrupted),
            ended = self.service.ended() => {
                let (status, words) = (ended?, child::last_words(&self.world));
                return Err(failed(format!("scimtail run ended ({status}): {words}")).into());
            }
            next = tokio::time::timeout(self.patience, self.seen.recv()) => next,
        };
        let Ok(next) = next else {
            let seconds = self.patience.as_secs();
            let words = child::last_words(&self.world);
            return Err(failed(format!("nothing was read back for {seconds} s; the service says: {words}")).into());
        };
        let next = next.ok_or_else(|| failed("Kafka is no longer read".to_owned()))?;
        if let Seen::Event(event) = &next {
            self.reached.insert(event.account.clone(), event.sequence);
        }
        Ok(next)
    }

    /// Waits for something that is not read from Kafka.
    pub async fn wait<T>(&mut self, what: &str, thing: impl Future<Output = T>) -> Result<T, Ending> {
        tokio::select! {
            () = self.signals.next() => Err(Ending::Interrupted),
            done = tokio::time::timeout(self.patience, thing) => {
                Ok(done.map_err(|_| failed(format!("{what} did not come within {} s", self.patience.as_secs())))?)
            }
        }
    }

    /// The number of the newest event of an account that was read.
    pub fn reached(&self, account: &str) -> i64 {
        self.reached.get(account).copied().unwrap_or(0)
    }

    /// Reads until the events that a sync has published were read, and gives them to `each`.
    pub async fn catch_up(
        &mut self,
        status: &SyncStatus,
        mut each: impl FnMut(&Stage, ChangeEvent) -> Result<(), Failure>,
    ) -> Result<(), Ending> {
        while self.reached(&status.account) < status.sequence {
            if let Seen::Event(event) = self.next().await? {
                each(self, *event)?;
            }
        }
        Ok(())
    }

    /// Prints an event.
    pub fn event(&self, event: &ChangeEvent) -> Result<(), Failure> {
        let line = text::line(event, self.account_width);
        self.screen.row(line.get(DATE_BYTES..).unwrap_or(&line))
    }

    /// Prints what became of a sync.
    pub fn sync(&self, status: &SyncStatus, words: &str) -> Result<(), Failure> {
        let at = text::clock(status.finished_at.unwrap_or(status.started_at));
        let color = match status.status.as_str() {
            "completed" => AnsiColor::Green,
            "held" => AnsiColor::Yellow,
            _ => AnsiColor::Red,
        };
        let style = Style::new().fg_color(Some(color.into()));
        let (time, width) = (at.get(DATE_BYTES..).unwrap_or(&at), self.account_width);
        self.screen.row(&format!("{time}  {:width$}  {style}{}{style:#}", status.account, status.status))?;
        self.screen.say(&text::clean(words))
    }

    /// Prints a row with a label where events have their time.
    pub fn labelled(&self, label: &str, account: &str, words: &str) -> Result<(), Failure> {
        let (style, width) = (Style::new().fg_color(Some(AnsiColor::Cyan.into())), self.account_width);
        self.screen.row(&format!("{style}{label:8}{style:#}  {account:width$}  {words}"))
    }

    /// Prints what was found, and remembers if it is not as it has to be.
    pub fn claim(&mut self, holds: bool, words: &str) -> Result<(), Failure> {
        self.holds &= holds;
        let (color, verdict) = if holds { (AnsiColor::Green, "ok") } else { (AnsiColor::Red, "NOT SO") };
        let style = Style::new().fg_color(Some(color.into())).bold();
        self.screen.say(&format!("{style}{verdict}{style:#}  {words}"))
    }

    /// Shows a command, runs it, and shows the first `first` and the last `last` lines of what it says.
    pub async fn show(&mut self, arguments: &[&str], first: usize, last: usize) -> Result<(), Ending> {
        self.screen.command(&format!("scimtail {}", arguments.join(" ")))?;
        let (out, _) = self.run(arguments).await?;
        let lines: Vec<&str> = out.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            if index < first || index + last >= lines.len() {
                self.screen.row(line)?;
            } else if index == first {
                self.screen.row(&format!("  … {} more lines", lines.len() - first - last))?;
            }
        }
        Ok(())
    }

    /// Runs a command; what it says on standard output, and its exit code.
    pub async fn run(&mut self, arguments: &[&str]) -> Result<(String, i32), Ending> {
        let output = tokio::select! {
            () = self.signals.next() => return Err(Ending::Interrupted),
            output = child::run(&self.world, arguments) => output?,
        };
        let code = output.status.code().unwrap_or(-1);
        // 75: held, which is what `plan` says of a sync that would be.
        if ![Exit::Done as i32, Exit::TryLater as i32].contains(&code) {
            let said = String::from_utf8_lossy(&output.stderr);
            let words = said.lines().last().unwrap_or("nothing was said");
            return Err(failed(format!("scimtail {} ended with {code}: {words}", arguments.join(" "))).into());
        }
        Ok((String::from_utf8_lossy(&output.stdout).into_owned(), code))
    }
}

fn partitions(world: &World) -> BTreeSet<i32> {
    world.accounts.iter().map(|one| one.config.account.partition).collect()
}
