//! `demo directories`: only the simulated directories, as a service for others to read.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use tokio::time::MissedTickBehavior;

use super::stage::Signals;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::print;
use crate::demo::account;
use crate::demo::directory::{SimulatedDirectory, Vendor};
use crate::duration::parse_duration;
use crate::schedule::wall_clock;

#[derive(Debug, Args)]
pub struct Options {
    /// IP address and port; 0.0.0.0 in a container
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// URL at which clients find the address [default: http://ADDR]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Bearer token of the Stripe-like directory
    #[arg(long, value_name = "TOKEN", default_value = "demo-token", env = "STRIPE_SCIM_TOKEN", hide_env_values = true)]
    stripe_token: String,
    /// Bearer token of the Chargebee-like directory
    #[arg(
        long,
        value_name = "TOKEN",
        default_value = "demo-token",
        env = "CHARGEBEE_SCIM_TOKEN",
        hide_env_values = true
    )]
    chargebee_token: String,
    /// Time between two changes of each directory
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    interval: Duration,
    /// The same seed gives the same directories and changes [default: random]
    #[arg(long)]
    seed: Option<u64>,
}

/// Serves the directories, and changes them, until a signal ends it.
///
/// # Errors
/// The address cannot be listened on.
pub async fn serve(options: Options) -> Result<Exit, Failure> {
    let mut signals = Signals::new()?;
    let Options { listen, url, stripe_token, chargebee_token, interval, seed } = options;
    if interval.is_zero() {
        return Err(Failure::new(Exit::Usage, "--interval is 0; → e.g. --interval 5s"));
    }
    let public = |address: SocketAddr| {
        url.map_or_else(|| format!("http://{address}"), |url| url.trim_end_matches('/').to_owned())
    };
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    let tokens = [stripe_token.as_str(), chargebee_token.as_str()];
    let started = SimulatedDirectory::start_all(listen, public, tokens, seed, wall_clock).await;
    let directories = started.map_err(|error| {
        Failure::new(Exit::Configuration, format!("--listen {listen}: {}; → use another address", error.kind()))
    })?;
    print("# Two simulated directories are served. Their people are made up. These accounts read them:")?;
    for ((vendor, directory), variable) in
        Vendor::ALL.into_iter().zip(&directories).zip(["STRIPE_SCIM_TOKEN", "CHARGEBEE_SCIM_TOKEN"])
    {
        print(account(vendor, &directory.base_url(), &format!("token_env = \"{variable}\"")).trim_end())?;
    }
    let mut changes = tokio::time::interval(interval);
    changes.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is now.
    changes.tick().await;
    loop {
        tokio::select! {
            () = signals.next() => return Ok(Exit::Done),
            _ = changes.tick() => {
                for directory in &directories {
                    directory.change();
                }
            }
        }
    }
}
