//! `check --record`: a recording of the directories that were checked, without data, in a file that can be sent.

use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tempfile::NamedTempFile;

use crate::cli::failure::{Exit, Failure};
use crate::config::AccountConfig;
use crate::directory::{Kind, Problem};
use crate::recording;
use crate::scim::profile::Paging;
use crate::scim::tape::Tape;
use crate::scim::{ScimDirectory, listing};

/// For the requests that only a recording needs.
const MORE_WAIT: Duration = Duration::from_secs(15);

/// Where a recording will be.
pub(super) struct Record {
    path: PathBuf,
    tape: Tape,
}

/// A recording that was written.
#[derive(Debug, Serialize)]
pub(super) struct Written {
    /// `null`: there was nothing to record.
    file: Option<String>,
    requests: usize,
    /// Requests that are not in it, because it has enough of their form.
    requests_left_out: usize,
}

impl Written {
    pub(super) fn lines(&self) -> Vec<String> {
        let Written { file, requests, requests_left_out } = self;
        let Some(file) = file else { return vec!["no recording: no directory answered a request".to_owned()] };
        vec![
            format!(
                "{file}: {requests} requests and their answers, {requests_left_out} more of the same forms left out; \
                 ids, names, addresses and other texts are replaced"
            ),
            "→ read it before you send it".to_owned(),
        ]
    }
}

impl Record {
    /// Finds out before anything is asked whether the file can be written.
    ///
    /// # Errors
    /// There is something at this path, or nothing can be written there.
    pub(super) fn begin(path: &Path) -> Result<Record, Failure> {
        let record = Record { path: path.to_owned(), tape: Tape::default() };
        if path.symlink_metadata().is_ok() {
            return Err(record.unwritten(&io::Error::from(ErrorKind::AlreadyExists)));
        }
        beside(path).map_err(|error| record.unwritten(&error))?;
        Ok(record)
    }

    /// A tape for one more account.
    pub(super) fn tape(&self) -> Tape {
        self.tape.beside()
    }

    /// Writes what is on the tapes: a whole file, or none.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn write<'a>(
        self,
        taped: impl Iterator<Item = (&'a Arc<AccountConfig>, &'a Tape)>,
    ) -> Result<Written, Failure> {
        let (mut requests, mut requests_left_out) = (0, 0);
        let accounts = taped.map(|(config, tape)| {
            let (exchanges, left_out) = tape.exchanges();
            requests += exchanges.len();
            requests_left_out += left_out;
            let account = &config.account;
            recording::Account {
                name: &account.name,
                provider: &account.provider,
                base_url: &config.base_url,
                exchanges,
                left_out,
            }
        });
        let accounts: Vec<_> = accounts.collect();
        if requests == 0 {
            return Ok(Written { file: None, requests, requests_left_out });
        }
        let text = recording::text(accounts, fastrand::u64(..));
        let text = text.map_err(|_| Failure::new(Exit::Failed, "the recording cannot be made"))?;
        save(&self.path, text.as_bytes()).map_err(|error| self.unwritten(&error))?;
        Ok(Written { file: Some(self.path.display().to_string()), requests, requests_left_out })
    }

    fn unwritten(&self, error: &io::Error) -> Failure {
        let path = self.path.display();
        if error.kind() == ErrorKind::AlreadyExists {
            let problem = Problem::new(format!("--record {path}: there is a file of this name"));
            return Failure::new(Exit::Usage, problem.with_remedy("name a file that does not exist"));
        }
        let problem = Problem::new(format!("--record {path} cannot be written: {error}"));
        Failure::new(
            Exit::Failed,
            problem.with_remedy("name a file in a folder that you may write, with room on its disk"),
        )
    }
}

/// A file that only its user may read, under a name that does not last.
fn beside(path: &Path) -> io::Result<NamedTempFile> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    NamedTempFile::new_in(folder)
}

/// Gives the text its name once all of it is on the disk. What is at `path` stays.
fn save(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = beside(path)?;
    file.write_all(text)?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path)?;
    Ok(())
}

/// Asks what a check does not ask: the server's schemas, and for the page behind the last row.
pub(super) async fn ask_more(directory: &ScimDirectory, tape: &Tape) {
    if tape.exchanges().0.is_empty() {
        return;
    }
    tape.next_part();
    // What fails is on the tape as well, or the check has said why.
    let asking = async {
        let client = &directory.client;
        for path in ["Schemas", "ResourceTypes"] {
            client.get(client.urls().of(&[path], &[])).await.ok();
        }
        if client.profile().paging == Paging::None {
            return;
        }
        for kind in Kind::BOTH.into_iter().filter(|kind| *kind == Kind::User || client.profile().groups) {
            let Ok(first) = directory.first_page(kind).await else { continue };
            let Some(total) = first.total.filter(|_| first.next_cursor.is_none()) else { continue };
            let behind = [("startIndex", (total + 1).to_string()), ("count", client.profile().page_size.to_string())];
            listing::one_page(client, kind, &behind).await.ok();
        }
    };
    tokio::time::timeout(MORE_WAIT, asking).await.ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_there_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("recording.json");
        std::fs::write(&path, "mine").unwrap();
        let refused = Record::begin(&path).err().expect("it is refused");
        assert_eq!(refused.exit, Exit::Usage);
        // It came in between.
        assert_eq!(save(&path, b"{}").unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "and nothing is left beside it");
    }

    #[test]
    #[cfg(unix)]
    fn only_its_user_may_read_a_recording() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("recording.json");
        save(&path, b"{}\n").unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read(&path).unwrap(), b"{}\n");
    }
}
