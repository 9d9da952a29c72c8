//! Secrets are in the environment or in files, and are read when they are needed. No message repeats a secret, or a text
//! that may be one by mistake: a person may write the token where the name of its variable belongs.

use std::path::PathBuf;
use std::{env, fmt};

use secrecy::SecretString;

use crate::transport::file::{Content, NamedFile};

/// Bytes of a file that holds a secret.
const SECRET_BYTES_MAX: usize = 64 << 10;
/// Bytes of the name of an environment variable.
const VARIABLE_BYTES_MAX: usize = 128;
/// Bytes of such a name if a message repeats it.
const TOLD_VARIABLE_BYTES_MAX: usize = 64;

/// Words before a token in a header, which are not part of the token.
const SCHEMES: [&str; 10] =
    ["Bearer", "Basic", "Token", "ApiKey", "Api-Key", "Key", "GenieKey", "SSWS", "OAuth", "Authorization:"];

/// The kind of a secret. Its keys in the configuration are named after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A bearer token or an API key.
    Token,
    Password,
    ClientSecret,
    RefreshToken,
    ProxyPassword,
    /// A key in PEM, in a file only.
    PrivateKey,
    /// The value of a property of librdkafka, whose keys are `env` and `file` alone.
    KafkaProperty,
}

impl Purpose {
    /// The beginning of its keys; `_env` and `_file` follow.
    pub fn key(self) -> &'static str {
        match self {
            Purpose::Token => "token",
            Purpose::Password => "password",
            Purpose::ClientSecret => "client_secret",
            Purpose::RefreshToken => "refresh_token",
            Purpose::ProxyPassword => "proxy_password",
            Purpose::PrivateKey => "private_key",
            Purpose::KafkaProperty => "",
        }
    }

    /// The key that takes the name of a variable.
    fn env_key(self) -> String {
        match self {
            Purpose::KafkaProperty => "env".to_owned(),
            named => format!("{}_env", named.key()),
        }
    }

    fn file_key(self) -> &'static str {
        match self {
            Purpose::Token => "token_file",
            Purpose::Password => "password_file",
            Purpose::ClientSecret => "client_secret_file",
            Purpose::RefreshToken => "refresh_token_file",
            Purpose::ProxyPassword => "proxy_password_file",
            Purpose::PrivateKey => "private_key_file",
            Purpose::KafkaProperty => "file",
        }
    }

    fn content(self) -> Content {
        match self {
            Purpose::Token => Content::Token,
            Purpose::Password | Purpose::ProxyPassword => Content::Password,
            Purpose::ClientSecret => Content::ClientSecret,
            Purpose::RefreshToken => Content::RefreshToken,
            Purpose::PrivateKey => Content::PrivateKey,
            Purpose::KafkaProperty => Content::Secret,
        }
    }

    fn noun(self) -> &'static str {
        match self {
            Purpose::Token => "token",
            Purpose::Password | Purpose::ProxyPassword => "password",
            Purpose::ClientSecret => "client secret",
            Purpose::RefreshToken => "refresh token",
            Purpose::PrivateKey => "private key",
            Purpose::KafkaProperty => "secret",
        }
    }

    fn takes_a_name(self) -> String {
        format!("{} takes the NAME of a variable, not the {}", self.env_key(), self.noun())
    }
}

/// The place of a secret. The secret is read for each sync and again when it is refused, so that rotation takes effect.
#[derive(Clone)]
pub enum Secret {
    Env {
        purpose: Purpose,
        variable: String,
    },
    File {
        purpose: Purpose,
        file: NamedFile,
    },
    /// The secret itself, for the simulated directories of tests.
    Given(SecretString),
}

impl Secret {
    /// A secret in the environment.
    ///
    /// # Errors
    /// The text cannot be the name of a variable; the message does not repeat it.
    pub fn env(purpose: Purpose, variable: &str) -> Result<Secret, String> {
        if !is_variable_name(variable) {
            let (key, remedy) = (purpose.env_key(), purpose.takes_a_name());
            return Err(format!("{key} is not the name of an environment variable; → {remedy}"));
        }
        Ok(Secret::Env { purpose, variable: variable.to_owned() })
    }

    /// A secret in a file.
    pub fn file(purpose: Purpose, path: impl Into<PathBuf>) -> Secret {
        Secret::File { purpose, file: NamedFile::new(purpose.file_key(), path, purpose.content()) }
    }

    /// The secret of the two keys `…_env` and `…_file`; `None` without both.
    ///
    /// # Errors
    /// As [`Secret::env`], or both keys are given.
    pub fn either(purpose: Purpose, variable: Option<String>, file: Option<PathBuf>) -> Result<Option<Secret>, String> {
        match (variable, file) {
            (None, None) => Ok(None),
            (Some(variable), None) => Secret::env(purpose, &variable).map(Some),
            (None, Some(path)) => Ok(Some(Secret::file(purpose, path))),
            (Some(_), Some(_)) => {
                let key = purpose.key();
                Err(format!("{key}_env and {key}_file are both given; → remove one"))
            }
        }
    }

    /// The file, if the secret is in one.
    pub fn named_file(&self) -> Option<&NamedFile> {
        match self {
            Secret::File { file, .. } => Some(file),
            Secret::Env { .. } | Secret::Given(_) => None,
        }
    }

    /// True if both are in the same place. Of two given secrets that is not known.
    pub fn is_at(&self, other: &Secret) -> bool {
        match (self, other) {
            (Secret::Env { variable: one, .. }, Secret::Env { variable: other, .. }) => one == other,
            (Secret::File { file: one, .. }, Secret::File { file: other, .. }) => one.path == other.path,
            _ => false,
        }
    }

    /// Reads the secret as it is now: a token without white space around it, a password without the end of the line.
    ///
    /// # Errors
    /// Names the variable or file if that reveals no secret, and never its content.
    pub fn read(&self) -> Result<SecretString, String> {
        let (purpose, text) = match self {
            Secret::Given(secret) => return Ok(secret.clone()),
            Secret::Env { purpose, variable } => (*purpose, self.read_variable(*purpose, variable)?),
            Secret::File { purpose, file } => (*purpose, self.read_file(file)?),
        };
        usable(purpose, &text).map(SecretString::from).map_err(|complaint| format!("{self} {complaint}"))
    }

    fn read_variable(&self, purpose: Purpose, variable: &str) -> Result<String, String> {
        #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
        let read = env::var(variable);
        read.map_err(|error| match error {
            env::VarError::NotUnicode(_) => format!("{self} holds bytes that are not text"),
            env::VarError::NotPresent if is_printable(variable) => {
                format!("{self} is not set; → export {variable}=…")
            }
            env::VarError::NotPresent => format!("{self} is not set; → {}", purpose.takes_a_name()),
        })
    }

    fn read_file(&self, file: &NamedFile) -> Result<String, String> {
        let bytes = file.read(SECRET_BYTES_MAX).map_err(|problem| problem.to_string())?;
        String::from_utf8(bytes).map_err(|_| format!("{self} holds bytes that are not text"))
    }
}

/// The place of the secret in the words of a message.
impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Secret::Env { variable, .. } if is_printable(variable) => write!(f, "environment variable {variable}"),
            Secret::Env { purpose, .. } => write!(f, "the environment variable that {} names", purpose.env_key()),
            Secret::File { file, .. } => file.fmt(f),
            Secret::Given(_) => write!(f, "the secret"),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Secret::Given(secret) => f.debug_tuple("Given").field(secret).finish(),
            place => write!(f, "Secret({place})"),
        }
    }
}

/// The secret in the text that was read.
///
/// # Errors
/// Says what the variable or file holds instead, and what belongs there.
fn usable(purpose: Purpose, text: &str) -> Result<&str, String> {
    let secret = match purpose {
        // White space and quotes may be part of a password.
        Purpose::Password | Purpose::ProxyPassword => text.trim_matches(['\r', '\n']),
        Purpose::PrivateKey | Purpose::KafkaProperty if text.trim().is_empty() => return Err("is empty".to_owned()),
        Purpose::PrivateKey => return Ok(text),
        // A property may be a password, or a key in PEM of many lines.
        Purpose::KafkaProperty => return Ok(text.trim_matches(['\r', '\n'])),
        Purpose::Token | Purpose::ClientSecret | Purpose::RefreshToken => plain_token(purpose.noun(), text.trim())?,
    };
    if secret.trim().is_empty() || secret.contains(char::is_control) {
        return Err("holds no usable secret (empty, or more than one line)".to_owned());
    }
    Ok(secret)
}

/// The token or client secret, unless it was copied together with the text around it.
fn plain_token<'t>(noun: &str, token: &'t str) -> Result<&'t str, String> {
    let is_wrapped = |quote: char| token.len() > 1 && token.starts_with(quote) && token.ends_with(quote);
    if is_wrapped('"') || is_wrapped('\'') {
        return Err(format!("holds quotes around the {noun}; → the {noun} without them"));
    }
    let mut words = token.split_whitespace();
    let first = words.next().unwrap_or("");
    let more = words.next().is_some();
    let scheme = SCHEMES.iter().find(|scheme| first.eq_ignore_ascii_case(scheme));
    match scheme {
        Some(scheme) if more => Err(format!("holds `{scheme} ` in front of the {noun}; → the {noun} alone")),
        Some(scheme @ &"Bearer") => Err(format!("holds `{scheme}` without the {noun}; → the {noun} alone")),
        _ if more => Err(format!("holds white space inside the {noun}; → the {noun} alone, in one line")),
        _ => Ok(token),
    }
}

/// True for the name of an environment variable. Many tokens have this form too.
fn is_variable_name(text: &str) -> bool {
    text.len() <= VARIABLE_BYTES_MAX
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// True if a message may repeat the name of a variable: it has capital letters and `_` only, or digits and a `_` too.
/// A token in hexadecimal or base 32 has no `_`.
fn is_printable(variable: &str) -> bool {
    variable.len() <= TOLD_VARIABLE_BYTES_MAX
        && variable.starts_with(|c: char| c.is_ascii_uppercase() || c == '_')
        && variable.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
        && (variable.contains('_') || !variable.contains(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use secrecy::ExposeSecret;

    use super::*;

    fn variable(purpose: Purpose, name: &str) -> Secret {
        Secret::env(purpose, name).unwrap()
    }

    fn file(purpose: Purpose, path: impl Into<PathBuf>) -> Secret {
        Secret::file(purpose, path)
    }

    #[test]
    fn a_missing_secret_is_named_and_never_printed() {
        let missing = variable(Purpose::Token, "SCIMTAIL_TEST_NO_SUCH_VARIABLE").read().unwrap_err();
        assert_eq!(
            missing,
            "environment variable SCIMTAIL_TEST_NO_SUCH_VARIABLE is not set; → export SCIMTAIL_TEST_NO_SUCH_VARIABLE=…"
        );
        let given = tempfile::NamedTempFile::new().unwrap();
        fs::write(given.path(), "secret\u{7}").unwrap();
        let unusable = file(Purpose::Token, given.path()).read().unwrap_err();
        assert!(!unusable.contains("secret\u{7}") && unusable.contains("no usable secret"), "{unusable}");
        assert_eq!(format!("{:?}", Secret::Given("secret".to_owned().into())), "Given(SecretBox<str>([REDACTED]))");
    }

    /// The secret from a file with this content, or the complaint without the name of the file.
    fn read(purpose: Purpose, content: &str) -> Result<String, String> {
        let given = tempfile::NamedTempFile::new().unwrap();
        fs::write(given.path(), content).unwrap();
        let named = format!("secret file {} ", given.path().display());
        let read = file(purpose, given.path()).read();
        read.map(|secret| secret.expose_secret().to_owned())
            .map_err(|error| error.strip_prefix(&named).expect("it names the file").to_owned())
    }

    #[test]
    fn white_space_around_a_token_is_left_out_and_of_a_password_only_the_end_of_the_line() {
        for purpose in [Purpose::Token, Purpose::ClientSecret] {
            for content in ["4ca9ary", "4ca9ary\n", " 4ca9ary \r\n\n", "\t4ca9ary"] {
                assert_eq!(read(purpose, content).as_deref(), Ok("4ca9ary"));
            }
        }
        for content in [" 4ca9 ary ", "\"4ca9ary\"", "Bearer 4ca9ary"] {
            assert_eq!(read(Purpose::Password, &format!("{content}\r\n")).as_deref(), Ok(content));
        }
    }

    #[test]
    fn what_was_copied_together_with_a_token_is_named_with_what_to_do_and_the_token_never() {
        for (content, complaint) in [
            ("Bearer 4ca9ary", "holds `Bearer ` in front of the token; → the token alone"),
            ("bearer\t4ca9ary\n", "holds `Bearer ` in front of the token; → the token alone"),
            ("Bearer ", "holds `Bearer` without the token; → the token alone"),
            ("SSWS 4ca9ary", "holds `SSWS ` in front of the token; → the token alone"),
            ("Authorization: Bearer 4ca9ary", "holds `Authorization: ` in front of the token; → the token alone"),
            ("\"4ca9ary\"\n", "holds quotes around the token; → the token without them"),
            ("'4ca9ary'", "holds quotes around the token; → the token without them"),
            ("4ca9 ary", "holds white space inside the token; → the token alone, in one line"),
            ("4ca9\nary", "holds white space inside the token; → the token alone, in one line"),
            ("SLACK_TOKEN=x 4ca9ary", "holds white space inside the token; → the token alone, in one line"),
            (" \n", "holds no usable secret (empty, or more than one line)"),
            ("4ca9\u{7}ary", "holds no usable secret (empty, or more than one line)"),
        ] {
            assert_eq!(read(Purpose::Token, content), Err(complaint.to_owned()), "{content}");
            let complaint = complaint.replace("the token", "the client secret");
            assert_eq!(read(Purpose::ClientSecret, content), Err(complaint), "{content}");
        }
        for content in ["\n", "  ", "4ca9\nary"] {
            assert!(read(Purpose::Password, content).unwrap_err().starts_with("holds no usable secret"), "{content}");
        }
    }

    #[test]
    fn a_private_key_has_several_lines_and_no_file_is_read_beyond_the_bound() {
        assert_eq!(read(Purpose::PrivateKey, "-----BEGIN\n4ca9ary\n").as_deref(), Ok("-----BEGIN\n4ca9ary\n"));
        assert_eq!(read(Purpose::PrivateKey, " \n"), Err("is empty".to_owned()));
        let endless = file(Purpose::Token, "/dev/zero").read().unwrap_err();
        assert_eq!(endless, "secret file /dev/zero is larger than 65536 bytes, which is not the token");
        let binary = tempfile::NamedTempFile::new().unwrap();
        fs::write(binary.path(), [0xff, 0xfe]).unwrap();
        assert!(file(Purpose::Token, binary.path()).read().unwrap_err().ends_with(" holds bytes that are not text"));
    }

    #[test]
    fn a_token_where_the_name_of_its_variable_belongs_is_never_repeated() {
        for (purpose, remedy) in [
            (Purpose::Token, "token_env names is not set; → token_env takes the NAME of a variable, not the token"),
            (Purpose::Password, "→ password_env takes the NAME of a variable, not the password"),
            (Purpose::ClientSecret, "→ client_secret_env takes the NAME of a variable, not the client secret"),
            (Purpose::RefreshToken, "→ refresh_token_env takes the NAME of a variable, not the refresh token"),
        ] {
            for token in ["sk_live_4ca9ary", "xoxp_4ca9ary", "ghp_4ca9ary", "correcthorse", "JBSWY3DPEHPK3PXP"] {
                let secret = variable(purpose, token);
                let error = secret.read().unwrap_err();
                assert!(error.contains(remedy) && !error.contains(token), "{token}: {error}");
                assert!(!format!("{secret:?}").contains(token));
            }
            for token in ["sk-live-4ca9ary", "eyJhbGciOi.eyJzdWIi.c2ln", "", "4ca9ary", &"X".repeat(129), "A=B", "A\nB"]
            {
                let error = Secret::env(purpose, token).unwrap_err();
                let remedy = remedy.rsplit("; ").next().unwrap();
                assert!(error.contains(remedy) && (token.is_empty() || !error.contains(token)), "{token}: {error}");
            }
        }
    }

    #[test]
    fn a_token_where_the_path_of_its_file_belongs_is_never_repeated() {
        for token in ["sk_live_4ca9ary", "correcthorse", "/4ca9/ary+==", "4ca9/ary", "eyJhbGciOi.eyJzdWIi.c2ln"] {
            let error = file(Purpose::Token, token).read().unwrap_err();
            let expected = "the file that token_file names cannot be read (entity not found); \
                            → token_file takes the PATH of a file, not the token";
            assert_eq!(error, expected, "{token}");
        }
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("no-such-file");
        let error = file(Purpose::Token, &missing).read().unwrap_err();
        assert_eq!(error, format!("secret file {} cannot be read (entity not found)", missing.display()));
    }
}
