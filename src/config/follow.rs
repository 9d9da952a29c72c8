//! The configuration while the service runs. Its files are read periodically, and at once on request.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::account::AccountConfig;
use super::explain::ConfigError;
use super::file::Config;
use super::limits::CONFIG_BYTES_MAX;
use crate::transport::file::read_text;

/// Between two looks at the files. A change takes effect at the second look that finds it, or at the third if it names
/// another file. An editor may be in the middle of writing, and half a file can be valid, with fewer accounts.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The configured accounts, or why the files cannot be used.
pub type Accounts = Result<Vec<AccountConfig>, ConfigError>;

/// Files with their texts; `None` for a file that cannot be read.
type Texts = BTreeMap<PathBuf, Option<String>>;

/// The files, and the configuration in force.
#[derive(Debug)]
pub struct Followed {
    file: PathBuf,
    /// Only these accounts; all if it is empty.
    names: Vec<String>,
    running: Config,
    /// The configuration in force was read from these.
    told: Texts,
    /// What the last look found.
    seen: Texts,
    /// Why the files could not be used when they were last read.
    complaint: Option<ConfigError>,
}

impl Followed {
    /// `running`: the configuration in force, of which `names` select the accounts.
    pub fn new(file: &Path, running: &Config, names: &[String]) -> Followed {
        let (file, running, told) = (file.to_owned(), running.clone(), texts_of(running));
        Followed { file, names: names.to_vec(), running, seen: told.clone(), told, complaint: None }
    }

    /// The configured accounts now, whether they changed or not. Blocks, as [`Followed::look`] does.
    pub fn now(&mut self) -> Accounts {
        let read = self.read();
        self.take(read)
    }

    fn take(&mut self, read: Result<(Texts, Vec<AccountConfig>), ConfigError>) -> Accounts {
        self.complaint = read.as_ref().err().cloned();
        let (texts, accounts) = read?;
        self.seen.clone_from(&texts);
        self.told = texts;
        Ok(accounts)
    }

    /// The configured accounts if the files changed and stayed the same since the last look. Files that cannot be used
    /// are read at every look, because a file that does not exist yet may repair them. A complaint is returned once.
    pub fn look(&mut self) -> Option<Accounts> {
        let found = self.seen.keys().map(|file| (file.clone(), read_text(file, CONFIG_BYTES_MAX).ok())).collect();
        let before = std::mem::replace(&mut self.seen, found);
        if self.seen != before || (self.complaint.is_none() && self.seen == self.told) {
            return None;
        }
        let read = self.read();
        // If no look has found a file as it was read now, an editor may be writing it.
        if let Ok((texts, _)) = &read
            && texts.iter().any(|(file, text)| self.seen.get(file) != Some(text))
        {
            self.seen.clone_from(texts);
            return None;
        }
        let complained = self.complaint.take();
        let accounts = self.take(read);
        (accounts.is_ok() || self.complaint != complained).then_some(accounts)
    }

    /// Everything is checked before anything changes.
    fn read(&self) -> Result<(Texts, Vec<AccountConfig>), ConfigError> {
        let config = Config::load(&self.file)?;
        if !config.has_services_of(&self.running) {
            let file = self.file.display();
            return Err(ConfigError(format!(
                "{file}: [kafka], [registry], [outputs], [http] or [limits] changed; → restart scimtail, only accounts change without a restart"
            )));
        }
        Ok((texts_of(&config), config.select(&self.names)?))
    }
}

fn texts_of(config: &Config) -> Texts {
    config.files.iter().map(|(file, text)| (file.clone(), Some(text.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const ONE: &str = "[kafka]\nbrokers = [\"localhost:9092\"]\n\n[registry]\nurl = \"http://localhost:8081\"\n\n\
        [[account]]\nname = \"one\"\nprovider = \"generic\"\nbase_url = \"https://one.example/scim\"\ntoken_env = \"ONE\"\n";

    fn two() -> String {
        format!(
            "{ONE}\n[[account]]\nname = \"two\"\nprovider = \"generic\"\nbase_url = \"https://two.example/scim\"\ntoken_env = \"TWO\"\n"
        )
    }

    fn names(accounts: Option<Accounts>) -> Option<Vec<String>> {
        accounts.map(|said| said.unwrap().into_iter().map(|config| config.account.name).collect())
    }

    #[test]
    fn a_change_is_told_once_and_only_when_two_looks_agree() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("scimtail.toml");
        fs::write(&file, ONE).unwrap();
        let running = Config::load(&file).unwrap();
        let mut followed = Followed::new(&file, &running, &[]);
        assert!(followed.look().is_none(), "nothing is new");

        fs::write(&file, two()).unwrap();
        assert!(followed.look().is_none(), "an editor may be writing");
        assert_eq!(names(followed.look()).unwrap(), ["one", "two"]);
        assert!(followed.look().is_none(), "it was told");

        // A file that is cut off for a moment changes nothing.
        fs::write(&file, ONE).unwrap();
        assert!(followed.look().is_none());
        fs::write(&file, two()).unwrap();
        assert!(followed.look().is_none());
        assert!(followed.look().is_none());

        fs::write(&file, "[kafka").unwrap();
        assert!(followed.look().is_none());
        assert!(followed.look().unwrap().is_err());
        assert!(followed.look().is_none(), "one complaint is enough");
        fs::write(&file, two()).unwrap();
        assert!(followed.look().is_none());
        assert_eq!(names(followed.look()).unwrap(), ["one", "two"], "it is in order again");

        fs::remove_file(&file).unwrap();
        assert!(followed.look().is_none());
        assert!(followed.look().unwrap().unwrap_err().0.contains("cannot be read"));
    }

    #[test]
    fn the_files_of_providers_are_followed_too_and_waited_for_if_they_are_missing() {
        let folder = tempfile::tempdir().unwrap();
        let (file, ours) = (folder.path().join("scimtail.toml"), folder.path().join("ours.toml"));
        fs::write(&file, ONE).unwrap();
        let running = Config::load(&file).unwrap();
        let mut followed = Followed::new(&file, &running, &[]);
        fs::write(&file, format!("{ONE}\n[providers]\ngeneric = \"ours.toml\"\n")).unwrap();
        assert!(followed.look().is_none());
        assert!(followed.look().unwrap().unwrap_err().0.contains("ours.toml cannot be read"));
        assert!(followed.look().is_none());
        let page_size = |accounts: Option<Accounts>| accounts.unwrap().unwrap()[0].profile.page_size;
        fs::write(&ours, "extends = \"generic\"\npage_size = 7").unwrap();
        assert!(followed.look().is_none(), "an editor may be writing");
        assert_eq!(page_size(followed.look()), 7, "it is there now");
        fs::write(&ours, "extends = \"generic\"\npage_size = 8").unwrap();
        assert!(followed.look().is_none());
        assert_eq!(page_size(followed.look()), 8);
        assert!(followed.look().is_none());
    }

    #[test]
    fn a_request_is_answered_at_once_and_not_repeated_by_the_looks() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("scimtail.toml");
        fs::write(&file, ONE).unwrap();
        let running = Config::load(&file).unwrap();
        let mut followed = Followed::new(&file, &running, &[]);
        fs::write(&file, two()).unwrap();
        assert_eq!(names(Some(followed.now())).unwrap(), ["one", "two"]);
        assert_eq!(names(Some(followed.now())).unwrap(), ["one", "two"], "every request is answered");
        assert!(followed.look().is_none());
    }
}
