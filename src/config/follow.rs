//! The configuration while the service runs: its files are looked at again and again, and at once when somebody asks.

use std::path::Path;
use std::time::Duration;

use super::{AccountConfig, Config, ConfigError};

/// How often the files are looked at. What they say takes effect at the second look that finds it: an editor may be
/// in the middle of writing, and half a file can be a valid one with fewer accounts.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The accounts, or why the files cannot be used.
pub type Accounts = Result<Vec<AccountConfig>, ConfigError>;

/// What the files say, against what is in force.
#[derive(Debug)]
pub struct Followed<'a> {
    file: &'a Path,
    /// Only these accounts; all where there are none.
    names: &'a [String],
    running: &'a Config,
    /// What was said of the files last, so that it is said once.
    told: Accounts,
    /// What the last look found.
    seen: Accounts,
}

impl<'a> Followed<'a> {
    /// `accounts` are in force: those of `running` that `names` select.
    pub fn new(file: &'a Path, running: &'a Config, names: &'a [String], accounts: Vec<AccountConfig>) -> Followed<'a> {
        Followed { file, names, running, told: Ok(accounts.clone()), seen: Ok(accounts) }
    }

    /// What the files say now, whether or not it is new.
    pub fn now(&mut self) -> Accounts {
        self.seen = self.read();
        self.told = self.seen.clone();
        self.told.clone()
    }

    /// What the files say, if it is new and stayed the same since the last look.
    pub fn look(&mut self) -> Option<Accounts> {
        let found = self.read();
        let before = std::mem::replace(&mut self.seen, found);
        if self.seen != before || self.seen == self.told {
            return None;
        }
        self.told = self.seen.clone();
        Some(self.told.clone())
    }

    /// Everything is checked before anything changes.
    fn read(&self) -> Accounts {
        let config = Config::load(self.file)?;
        let (after, before) = (&config, self.running);
        if after.kafka != before.kafka
            || after.registry_url != before.registry_url
            || after.http_listen != before.http_listen
        {
            let file = self.file.display();
            return Err(ConfigError(format!(
                "{file}: [kafka], [registry], [outputs] or [http] changed; → restart scimtail, accounts alone need none"
            )));
        }
        config.select(self.names)
    }
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
        let mut followed = Followed::new(&file, &running, &[], running.accounts.clone());
        assert!(followed.look().is_none(), "nothing is new");

        fs::write(&file, two()).unwrap();
        assert!(followed.look().is_none(), "somebody may be writing");
        assert_eq!(names(followed.look()).unwrap(), ["one", "two"]);
        assert!(followed.look().is_none(), "it was told");

        // A file that is cut off for a moment is nothing to act upon.
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
    fn who_asks_is_told_at_once_and_not_again_by_the_looks() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("scimtail.toml");
        fs::write(&file, ONE).unwrap();
        let running = Config::load(&file).unwrap();
        let mut followed = Followed::new(&file, &running, &[], running.accounts.clone());
        fs::write(&file, two()).unwrap();
        assert_eq!(names(Some(followed.now())).unwrap(), ["one", "two"]);
        assert_eq!(names(Some(followed.now())).unwrap(), ["one", "two"], "whoever asks is answered");
        assert!(followed.look().is_none());
    }
}
