//! `demo`: the real pipeline between simulated directories and an embedded Kafka, as a story or as a number of syncs. A
//! replay at the end proves that the compacted topics equal the directories.

mod child;
mod directories;
mod screen;
mod seen;
mod stage;
mod story;
mod truth;

use std::collections::BTreeMap;

use clap::{Args, Subcommand};

use super::failure::{Exit, Failure};
use super::read::read_state;
use screen::Screen;
use seen::Seen;
use stage::{Ending, Stage};

/// Everything is kept in memory, so that a demo that is forgotten ends.
const SYNCS_MAX: u32 = 10_000;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Options {
    #[command(subcommand)]
    part: Option<Part>,
    /// No story: end after this many syncs of each account, with the replay [default: the story, and on a terminal live
    /// changes until Ctrl-C]
    #[arg(long, value_name = "N")]
    syncs: Option<u32>,
    /// Time between two syncs of an account
    #[arg(long, default_value = "1s")]
    interval: String,
    /// Repeat a demo; the same seed gives the same directories and changes [default: random]
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Serve only the two simulated directories, with made-up people, and change them
    Directories(directories::Options),
}

/// `has`: whether there is a command of this name.
pub async fn demo(options: Options, has: impl Fn(&str) -> bool) -> Result<Exit, Failure> {
    let Options { part, syncs, interval, seed } = options;
    if let Some(Part::Directories(options)) = part {
        return directories::serve(options).await;
    }
    let mut stage = Stage::open(seed.unwrap_or_else(|| fastrand::u64(..)), &interval).await?;
    let played = match syncs {
        Some(syncs) => play(&mut stage, syncs.clamp(1, SYNCS_MAX)).await,
        None => {
            let third = if has("status") { "status" } else { "plan" };
            tell(&mut stage, ["tail", "state access --account acme-chargebee", third]).await
        }
    };
    let exit = if stage.holds { Exit::Done } else { Exit::Failed };
    // In order, also after a failure: no process and no folder stays.
    stage.close().await;
    match played {
        Ok(()) | Err(Ending::Interrupted) => Ok(exit),
        Err(Ending::Failed(failure)) => Err(failure),
    }
}

/// So many syncs of each account, without the story.
async fn play(stage: &mut Stage, syncs: u32) -> Result<(), Ending> {
    stage.screen.say(
        "An embedded Kafka, a registry and two simulated directories are up. Everything below is read back from Kafka.",
    )?;
    story::addresses(stage)?;
    story::baseline(stage).await?;
    live(stage, syncs).await?;
    story::settle(stage).await?;
    Ok(replay(stage).await?)
}

/// The story, and on a terminal live changes after it, with three `commands` to try.
async fn tell(stage: &mut Stage, commands: [&str; 3]) -> Result<(), Ending> {
    story::tell(stage).await?;
    story::settle(stage).await?;
    stage.screen.heading("7. A new reader replays the topics")?;
    replay(stage).await?;
    if !Screen::is_terminal() {
        return Ok(());
    }
    stage.screen.heading("Now the demo goes on with live changes, until Ctrl-C")?;
    stage.screen.say("Try in another terminal:")?;
    let program = std::env::args_os().next();
    let program = program.map_or_else(|| "scimtail".into(), |program| program.to_string_lossy().into_owned());
    for command in commands {
        stage.screen.command(&format!("{program} --config {} {command}", stage.world.file.display()))?;
    }
    story::addresses(stage)?;
    stage.screen.say("")?;
    match live(stage, SYNCS_MAX).await {
        Ok(()) | Err(Ending::Interrupted) => {}
        Err(failed) => return Err(failed),
    }
    // A second Ctrl-C ends it here.
    story::settle(stage).await?;
    Ok(replay(stage).await?)
}

/// Changes the directories after each sync, and prints what is read back, until each account has completed so many
/// syncs.
async fn live(stage: &mut Stage, syncs: u32) -> Result<(), Ending> {
    // The baseline is the first.
    let mut completed: BTreeMap<String, u32> =
        stage.world.accounts.iter().map(|one| (one.name().to_owned(), 1)).collect();
    while completed.values().any(|count| *count < syncs) {
        match stage.next().await? {
            Seen::Event(event) => stage.event(&event)?,
            Seen::Completed(status) => {
                if let Some(count) = completed.get_mut(&status.account) {
                    *count += 1;
                }
                story::change(stage, &status);
            }
            Seen::Attempt(_) => {}
        }
    }
    Ok(())
}

/// Compares the directories with what a new reader finds in the compacted topics. Nothing comes from memory.
async fn replay(stage: &mut Stage) -> Result<(), Failure> {
    let mut sides = [(0, 0); truth::KINDS.len()];
    let mut equal = true;
    for one in &stage.world.accounts {
        let known = read_state(&stage.services.kafka, &stage.services.registry, &one.config.account).await?;
        let (replayed, truth) = (truth::contents(&known), truth::truth(one));
        for (index, (replayed, truth)) in replayed.iter().zip(&truth).enumerate() {
            sides[index].0 += replayed.len();
            sides[index].1 += truth.len();
            equal &= replayed == truth;
        }
    }
    let parts = truth::KINDS.iter().zip(sides).map(|(what, (replayed, truth))| {
        format!("{what} {replayed} {} {truth}", if replayed == truth { "=" } else { "≠" })
    });
    let verdict = match equal {
        true => "the compacted topics equal the directories",
        false => "the compacted topics DIFFER from the directories",
    };
    let parts = parts.collect::<Vec<_>>().join(", ");
    stage.claim(equal, &format!("replay: {parts}: {verdict}"))
}
