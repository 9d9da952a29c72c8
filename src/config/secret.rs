//! Secrets stand in the environment or in files and are read when they are needed.

use std::fs;
use std::path::PathBuf;

use secrecy::SecretString;

/// Bytes of a secret; a larger file holds none.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// Where a secret stands; read anew for each sync and when it is refused, so that a rotated one takes effect.
#[derive(Clone, Debug)]
pub enum Secret {
    Env(String),
    File(PathBuf),
    /// Of the simulated directories of `demo` and of tests.
    Given(SecretString),
}

impl Secret {
    /// Reads the secret as it is now, without white space around it.
    ///
    /// # Errors
    /// Names the variable or file, never its content.
    pub fn read(&self) -> Result<SecretString, String> {
        let (what, text) = match self {
            Secret::Given(secret) => return Ok(secret.clone()),
            #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
            Secret::Env(variable) => {
                let text = std::env::var(variable)
                    .map_err(|_| format!("environment variable {variable} is not set; → export {variable}=…"))?;
                (variable.clone(), text)
            }
            Secret::File(path) => {
                let what = format!("secret file {}", path.display());
                let size = fs::metadata(path).map_or(0, |metadata| metadata.len());
                if size > SECRET_BYTES_MAX {
                    return Err(format!("{what} is larger than any secret"));
                }
                let text =
                    fs::read_to_string(path).map_err(|error| format!("{what} cannot be read ({})", error.kind()))?;
                (what, text)
            }
        };
        let secret = text.trim();
        if secret.is_empty() || secret.contains(char::is_control) {
            return Err(format!("{what} holds no usable secret (empty, or more than one line)"));
        }
        Ok(SecretString::from(secret.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_secret_is_named_and_never_printed() {
        let missing = Secret::Env("SCIMTAIL_TEST_NO_SUCH_VARIABLE".into()).read().unwrap_err();
        assert!(missing.contains("SCIMTAIL_TEST_NO_SUCH_VARIABLE is not set"), "{missing}");
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "se\ncret\u{7}").unwrap();
        let unusable = Secret::File(file.path().to_owned()).read().unwrap_err();
        assert!(!unusable.contains("cret\u{7}") && unusable.contains("no usable secret"), "{unusable}");
        assert_eq!(format!("{:?}", Secret::Given("secret".to_owned().into())), "Given(SecretBox<str>([REDACTED]))");
    }
}
