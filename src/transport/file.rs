//! Files that the configuration or an option names: secrets, keys and certificates. They are read up to a bound, whatever they are,
//! and no message repeats a text that may be a secret in the place of a path.

use std::collections::HashSet;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::directory::Problem;

/// A file, and the key of the configuration or the option that names it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct NamedFile {
    /// As a person writes it, e.g. `ca_file`.
    pub key: &'static str,
    pub path: PathBuf,
    pub content: Content,
}

/// What a file holds. This decides which access is too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Content {
    Token,
    Password,
    ClientSecret,
    RefreshToken,
    PrivateKey,
    Secret,
    /// All users of the machine may read certificates.
    Certificates,
}

impl Content {
    pub fn noun(self) -> &'static str {
        match self {
            Content::Token => "the token",
            Content::Password => "the password",
            Content::ClientSecret => "the client secret",
            Content::RefreshToken => "the refresh token",
            Content::PrivateKey => "the private key",
            Content::Secret => "the secret",
            Content::Certificates => "the certificates",
        }
    }

    fn is_secret(self) -> bool {
        self != Content::Certificates
    }
}

/// Access to a file that its content does not permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposure {
    Writable,
    Readable,
}

impl Exposure {
    /// The exposure of a file with these mode bits (POSIX `st_mode`).
    fn of_mode(mode: u32, content: Content) -> Option<Exposure> {
        const WRITABLE_BY_OTHERS: u32 = 0o022;
        const READABLE_BY_ALL: u32 = 0o004;
        match mode {
            _ if mode & WRITABLE_BY_OTHERS != 0 => Some(Exposure::Writable),
            _ if content.is_secret() && mode & READABLE_BY_ALL != 0 => Some(Exposure::Readable),
            _ => None,
        }
    }
}

impl NamedFile {
    pub fn new(key: &'static str, path: impl Into<PathBuf>, content: Content) -> NamedFile {
        NamedFile { key, path: path.into(), content }
    }

    /// The content of the file. If users of the machine have more access than they should, a line of the log says so
    /// once.
    ///
    /// # Errors
    /// The file cannot be read, or is larger than `bytes_max`. The message names the file if that reveals no secret.
    pub fn read(&self, bytes_max: usize) -> Result<Vec<u8>, Problem> {
        let bytes = read_at_most(&self.path, bytes_max + 1).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => {
                Problem::new(format!("{self} is a pipe without content")).with_remedy("use a file")
            }
            kind if leads_somewhere(&self.path) => Problem::new(format!("{self} cannot be read ({kind})")),
            kind => Problem::new(format!("{self} cannot be read ({kind})")).with_remedy(format!(
                "{} takes the PATH of a file, not {}",
                self.key,
                self.content.noun()
            )),
        })?;
        if bytes.len() > bytes_max {
            let what = format!("{self} is larger than {bytes_max} bytes, which is not {}", self.content.noun());
            return Err(what.into());
        }
        self.warn_once();
        Ok(bytes)
    }

    /// A sentence about access that the content of the file does not permit; `None` if there is none, or if the file
    /// cannot be looked at.
    pub fn exposure(&self) -> Option<String> {
        let (access, remedy) = match Exposure::of_mode(mode(&self.path)?, self.content)? {
            Exposure::Writable => ("its group or all users of this machine may write it", "chmod go-w"),
            Exposure::Readable => ("all users of this machine may read it", "chmod o-rwx"),
        };
        Some(format!("{self}: {access}; → {remedy}"))
    }

    fn warn_once(&self) {
        static WARNED: Mutex<Option<HashSet<PathBuf>>> = Mutex::new(None);
        let Some(text) = self.exposure() else { return };
        let mut warned = WARNED.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.get_or_insert_default().insert(self.path.clone()) {
            tracing::warn!("{text}");
        }
    }
}

/// The place in the words of a message.
impl fmt::Display for NamedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = if self.content.is_secret() { "secret file" } else { "file" };
        match leads_somewhere(&self.path) {
            true => write!(f, "{noun} {}", self.path.display()),
            false => write!(f, "the file that {} names", self.key),
        }
    }
}

impl fmt::Debug for NamedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NamedFile({self})")
    }
}

/// At most `bytes_max` bytes of a file. Its size is not asked for, because `/dev/zero` and pipes state none. A pipe
/// that no process writes to is not waited for.
fn read_at_most(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    }
    let mut bytes = Vec::new();
    options.open(path)?.take(bytes_max as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A text that is no secret, of at most `bytes_max` bytes. A pipe is waited for: a shell passes on what a command prints
/// as one.
///
/// # Errors
/// The file cannot be read, or is larger, or is not UTF-8.
pub fn read_text(path: &Path, bytes_max: usize) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > bytes_max {
        return Err(ErrorKind::FileTooLarge.into());
    }
    String::from_utf8(bytes).map_err(|_| ErrorKind::InvalidData.into())
}

#[cfg(unix)]
fn mode(path: &Path) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = std::fs::metadata(path).ok()?;
    // A device or a pipe has other rules.
    metadata.is_file().then(|| metadata.permissions().mode())
}

#[cfg(not(unix))]
fn mode(_path: &Path) -> Option<u32> {
    None
}

/// True if the first folder of the path exists, or the file itself: then the text is a path and not the secret. A secret
/// in base 64 may begin with a slash.
pub fn leads_somewhere(path: &Path) -> bool {
    let mut folders: Vec<&Path> = path.ancestors().filter(|folder| folder.file_name().is_some()).collect();
    folders.pop().is_some_and(Path::exists)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const BYTES_MAX: usize = 16;

    fn token(path: impl Into<PathBuf>) -> NamedFile {
        NamedFile::new("token_file", path, Content::Token)
    }

    fn refusal(file: &NamedFile) -> String {
        file.read(BYTES_MAX).unwrap_err().to_string()
    }

    #[test]
    fn a_file_is_read_up_to_the_bound_whatever_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(&path, [b'x'; BYTES_MAX]).unwrap();
        assert_eq!(token(&path).read(BYTES_MAX).unwrap().len(), BYTES_MAX);
        fs::write(&path, [b'x'; BYTES_MAX + 1]).unwrap();
        for endless in [path.as_path(), Path::new("/dev/zero")] {
            let error = refusal(&token(endless));
            assert!(error.ends_with("is larger than 16 bytes, which is not the token"), "{error}");
        }
        assert!(refusal(&token(folder.path())).contains("cannot be read"));
    }

    #[test]
    fn a_text_is_read_up_to_the_bound_whatever_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        let complaint = |path: &Path| read_text(path, BYTES_MAX).unwrap_err().kind();
        fs::write(&path, "ä".repeat(BYTES_MAX / 2)).unwrap();
        assert_eq!(read_text(&path, BYTES_MAX).unwrap().len(), BYTES_MAX);
        fs::write(&path, format!("x{}", "ä".repeat(BYTES_MAX / 2))).unwrap();
        assert_eq!(complaint(&path), ErrorKind::FileTooLarge);
        assert_eq!(complaint(Path::new("/dev/zero")), ErrorKind::FileTooLarge);
        assert_eq!(complaint(folder.path()), ErrorKind::IsADirectory);
        fs::write(&path, [0xff]).unwrap();
        assert_eq!(complaint(&path), ErrorKind::InvalidData);
    }

    #[test]
    fn a_pipe_is_never_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status().expect("every Unix system has mkfifo");
        assert!(made.success());
        let file = token(&path);
        // No process has the other end open.
        assert_eq!(file.read(BYTES_MAX), Ok(Vec::new()));
        // A process has the other end open and writes nothing.
        let mut end = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let error = refusal(&file);
        assert!(error.contains("is a pipe without content; → use a file"), "{error}");
        io::Write::write_all(&mut end, &[b'x'; BYTES_MAX + 1]).unwrap();
        assert!(refusal(&file).contains("is larger than 16 bytes"));
    }

    #[test]
    fn a_file_with_too_much_access_is_named_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(&path, "x").unwrap();
        for (mode, secret, public) in [
            (0o600, None, None),
            (0o640, None, None),
            (0o644, Some("may read it; → chmod o-rwx"), None),
            (0o660, Some("may write it; → chmod go-w"), Some("may write it; → chmod go-w")),
            (0o602, Some("may write it; → chmod go-w"), Some("may write it; → chmod go-w")),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            for (file, expected) in
                [(token(&path), secret), (NamedFile::new("ca_file", &path, Content::Certificates), public)]
            {
                let said = file.exposure();
                assert_eq!(said.is_some(), expected.is_some(), "{mode:o}: {said:?}");
                assert!(said.unwrap_or_default().ends_with(expected.unwrap_or_default()), "{mode:o}");
            }
        }
        assert_eq!(token("/dev/zero").exposure(), None, "a device has other rules");
        assert_eq!(token(folder.path().join("absent")).exposure(), None);
    }

    #[test]
    fn the_content_of_a_key_in_the_place_of_its_path_is_never_repeated() {
        for text in ["-----BEGIN PRIVATE KEY-----\n4ca9ary\n-----END", "4ca9ary", "/4ca9/ary+==", "4ca9/ary"] {
            let file = NamedFile::new("client_key_file", text, Content::PrivateKey);
            let error = refusal(&file);
            assert!(error.starts_with("the file that client_key_file names cannot be read"), "{error}");
            assert!(error.ends_with("; → client_key_file takes the PATH of a file, not the private key"), "{error}");
            assert!(!error.contains("4ca9") && !format!("{file:?}").contains("4ca9"), "{error}");
        }
    }
}
