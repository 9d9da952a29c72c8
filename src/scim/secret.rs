//! A secret as it travels: which one it is, and whether a header can carry it.

use std::sync::Arc;

use secrecy::SecretString;

/// Reads the secret as it is now. `Err`: why it cannot be read, without any of it.
pub type ReadSecret = Arc<dyn Fn() -> Result<SecretString, String> + Send + Sync>;

/// A secret, and which one it is: numbers grow.
#[derive(Clone)]
pub(super) struct Numbered {
    pub secret: SecretString,
    pub number: u64,
}

pub(super) fn fits_a_header(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_graphic() || c == ' ')
}
