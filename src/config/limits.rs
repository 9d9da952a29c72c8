//! `[limits]`, `[account.limits]` and `[defaults.limits]`: bounds of the process and of an account.

use serde::Deserialize;

use crate::account::MAX_PRINCIPALS;

/// Bytes of the configuration file, and of each file of `[providers]`. A hundred thousand accounts have fewer.
pub(super) const CONFIG_BYTES_MAX: usize = 64 << 20;

/// With less memory, the process cannot hold the requests and pages of one account.
const MEMORY_MIN: u64 = 64 << 20;
const UNITS: [(&str, u32); 4] = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];

/// `[limits]`, of the process.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessLimits {
    /// Memory for what all running syncs keep until they publish it, with its unit, e.g. `"512MiB"`, `"2GiB"`; at least
    /// `"64MiB"`.
    /// Default: a quarter of the memory of the cgroup or the machine
    memory: Option<String>,
}

/// `[account.limits]`, and `[defaults.limits]` for accounts without them.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountLimits {
    /// Users and groups that a directory may have. A sync that finds more fails.
    /// Default: `1000000`
    max_principals: Option<usize>,
}

impl ProcessLimits {
    /// Bytes of memory; `None` if they are chosen at start.
    pub fn memory(&self) -> Result<Option<u64>, String> {
        let Some(text) = &self.memory else { return Ok(None) };
        let bytes = parse_size(text).map_err(|complaint| format!("[limits] memory: {complaint}"))?;
        if bytes < MEMORY_MIN {
            return Err(format!("[limits] memory must be at least {}MiB", MEMORY_MIN >> 20));
        }
        Ok(Some(bytes))
    }
}

impl AccountLimits {
    pub fn max_principals(self, defaults: AccountLimits) -> Result<usize, String> {
        match self.max_principals.or(defaults.max_principals).unwrap_or(MAX_PRINCIPALS) {
            0 => Err(format!("limits.max_principals must be at least 1; → leave it out for {MAX_PRINCIPALS}")),
            max => Ok(max),
        }
    }
}

/// A whole number of bytes with its unit: `512MiB`, `2 GiB`.
fn parse_size(text: &str) -> Result<u64, String> {
    const WRONG: &str = "this is not a size; → a whole number with KiB, MiB, GiB or TiB, e.g. \"512MiB\"";
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = text[digits.len()..].trim_start();
    let (_, bits) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(WRONG)?;
    let number: u64 = digits.parse().map_err(|_| WRONG)?;
    number.checked_mul(1 << bits).ok_or_else(|| WRONG.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_whole_number_with_a_unit_of_1024() {
        for (text, bytes) in [
            ("64MiB", 64 << 20),
            ("512 MiB", 512 << 20),
            ("2GiB", 2 << 30),
            ("131072KiB", 128 << 20),
            ("1TiB", 1 << 40),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "512", "512M", "512MB", "512Mib", "1.5GiB", "-1GiB", "GiB", "2GiB ", "1 2GiB", "99999999TiB"] {
            assert!(parse_size(text).unwrap_err().contains("→ a whole number with KiB, MiB"), "{text}");
        }
    }
}
