//! `demo`
use clap::Args;

use super::{DONE, Failure};

#[derive(Debug, Args)]
pub struct Options {}

pub async fn demo(_options: Options) -> Result<u8, Failure> {
    Ok(DONE)
}
