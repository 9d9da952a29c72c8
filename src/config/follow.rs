//! The configuration while the service runs. Its files, and those of `accounts.d`, are read periodically, and at once on
//! request.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::account::AccountConfig;
use super::account_files;
use super::explain::ConfigError;
use super::file::Config;
use super::limits::CONFIG_BYTES_MAX;
use crate::transport::file::read_text;

/// Between two looks at the files. A change takes effect at the second look that finds it, or at the third if it names
/// another file. An editor may be in the middle of writing, and half a file can be valid, with fewer accounts.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The configured accounts, or why the files cannot be used.
pub type Accounts = Result<Vec<Arc<AccountConfig>>, ConfigError>;

/// Files with their texts; `None` for a file, or the folder `accounts.d`, that cannot be read.
type Texts = BTreeMap<PathBuf, Option<String>>;

/// The files, and the configuration in force.
#[derive(Debug)]
pub struct Followed {
    file: PathBuf,
    /// `accounts.d`, whose files come and go.
    folder: PathBuf,
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
        let (folder, told) = (account_files::folder_of(file), texts_of(running));
        let (file, names, running) = (file.to_owned(), names.to_vec(), running.clone());
        Followed { file, folder, names, running, seen: told.clone(), told, complaint: None }
    }

    /// The configured accounts now, whether they changed or not. Blocks, as [`Followed::look`] does.
    pub fn now(&mut self) -> Accounts {
        let read = self.read();
        self.take(read)
    }

    fn take(&mut self, read: Result<(Texts, Vec<Arc<AccountConfig>>), ConfigError>) -> Accounts {
        self.complaint = read.as_ref().err().cloned();
        let (texts, accounts) = read?;
        self.seen.clone_from(&texts);
        self.told = texts;
        Ok(accounts)
    }

    /// The configured accounts if the files changed and stayed the same since the last look. Files that cannot be used
    /// are read at every look, because a file that does not exist yet may repair them. A complaint is returned once.
    pub fn look(&mut self) -> Option<Accounts> {
        let found = self.found();
        let before = std::mem::replace(&mut self.seen, found);
        if self.seen != before || (self.complaint.is_none() && self.seen == self.told) {
            return None;
        }
        let read = self.read();
        // If no look has found a file as it was read now, an editor may be writing it.
        if let Ok((texts, _)) = &read
            && !self.has_seen(texts)
        {
            self.seen.clone_from(texts);
            return None;
        }
        let complained = self.complaint.take();
        let accounts = self.take(read);
        (accounts.is_ok() || self.complaint != complained).then_some(accounts)
    }

    /// What the files hold now: those that were read before, and all of the folder.
    fn found(&self) -> Texts {
        let named = self.seen.keys().filter(|file| !self.is_of_folder(file));
        let named = named.map(|file| (file.clone(), read_text(file, CONFIG_BYTES_MAX).ok()));
        match account_files::read(&self.folder) {
            Ok(beside) => named.chain(beside.into_iter().map(|(file, text)| (file, text.ok()))).collect(),
            Err(_) => named.chain([(self.folder.clone(), None)]).collect(),
        }
    }

    /// True for a file that is read because it is in the folder, and for the folder itself.
    fn is_of_folder(&self, file: &Path) -> bool {
        file == self.folder || (file.parent() == Some(&self.folder) && account_files::is_read(file))
    }

    /// True if the last look found these texts, and no other file in the folder.
    fn has_seen(&self, texts: &Texts) -> bool {
        texts.iter().all(|(file, text)| self.seen.get(file) == Some(text))
            && self.seen.keys().filter(|file| self.is_of_folder(file)).all(|file| texts.contains_key(file))
    }

    /// Everything is checked before anything changes.
    fn read(&self) -> Result<(Texts, Vec<Arc<AccountConfig>>), ConfigError> {
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
        accounts.map(|said| said.unwrap().into_iter().map(|config| config.account.name.clone()).collect())
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
    fn files_of_accounts_d_come_change_and_go_and_a_broken_one_keeps_what_was_valid() {
        let place = tempfile::tempdir().unwrap();
        let (file, folder) = (place.path().join("scimtail.toml"), place.path().join("accounts.d"));
        fs::write(&file, ONE).unwrap();
        let mut followed = Followed::new(&file, &Config::load(&file).unwrap(), &[]);
        assert!(followed.look().is_none(), "there is no folder");
        fs::create_dir(&folder).unwrap();
        assert!(followed.look().is_none());
        assert!(followed.look().is_none(), "an empty folder is no news");

        let written = |name: &str, url: &str| {
            let text = format!(
                "[[account]]\nname = \"{name}\"\nprovider = \"generic\"\nbase_url = \"{url}\"\ntoken_env = \"A\"\n"
            );
            fs::write(folder.join(format!("{name}.toml")), text).unwrap();
        };
        written("two", "https://two.example/scim");
        assert!(followed.look().is_none(), "it may be half of a file");
        assert_eq!(names(followed.look()).unwrap(), ["one", "two"]);
        assert!(followed.look().is_none(), "it was told");

        written("two", "https://other.example/scim");
        assert!(followed.look().is_none());
        let accounts = followed.look().unwrap().unwrap();
        assert_eq!(accounts[1].base_url.as_str(), "https://other.example/scim");

        // A file that is cut off for a moment changes nothing.
        fs::write(folder.join("two.toml"), "").unwrap();
        assert!(followed.look().is_none());
        written("two", "https://other.example/scim");
        assert!(followed.look().is_none());
        assert!(followed.look().is_none());

        fs::write(folder.join("three.toml"), "[[account]]\nname = 3\n").unwrap();
        assert!(followed.look().is_none());
        let complaint = followed.look().unwrap().unwrap_err().0;
        assert!(complaint.contains("accounts.d/three.toml:2: `name` in [[account]]: invalid type"), "{complaint}");
        assert!(followed.look().is_none(), "one complaint is enough");
        written("three", "https://three.example/scim");
        assert!(followed.look().is_none());
        assert_eq!(names(followed.look()).unwrap(), ["one", "three", "two"]);

        fs::remove_file(folder.join("two.toml")).unwrap();
        assert!(followed.look().is_none());
        assert_eq!(names(followed.look()).unwrap(), ["one", "three"]);
        fs::remove_file(folder.join("three.toml")).unwrap();
        assert_eq!(names(Some(followed.now())).unwrap(), ["one"], "a request is answered at once");
        assert!(followed.look().is_none());

        // A folder that cannot be read is not an empty one.
        written("two", "https://two.example/scim");
        assert!(followed.look().is_none());
        assert_eq!(names(followed.look()).unwrap(), ["one", "two"]);
        fs::remove_dir_all(&folder).unwrap();
        fs::write(&folder, "").unwrap();
        assert!(followed.look().is_none());
        assert!(followed.look().unwrap().unwrap_err().0.contains("accounts.d: cannot be read"));
    }

    #[test]
    fn a_volume_of_kubernetes_is_followed_when_its_link_turns() {
        use std::os::unix::fs::symlink;

        let place = tempfile::tempdir().unwrap();
        let (file, folder) = (place.path().join("scimtail.toml"), place.path().join("accounts.d"));
        fs::write(&file, ONE).unwrap();
        let version = |number: &str, accounts: &[&str]| {
            fs::create_dir_all(folder.join(number)).unwrap();
            for name in accounts {
                let text = ONE[ONE.find("[[account]]").unwrap()..].replace("\"one\"", &format!("\"{name}\""));
                fs::write(folder.join(format!("{number}/{name}.toml")), text).unwrap();
            }
            symlink(number, folder.join("..new")).unwrap();
            fs::rename(folder.join("..new"), folder.join("..data")).unwrap();
        };
        version("..1", &["two"]);
        symlink("..data/two.toml", folder.join("two.toml")).unwrap();
        let mut followed = Followed::new(&file, &Config::load(&file).unwrap(), &[]);
        assert!(followed.look().is_none());
        // First the link to the folder turns, then the links to files are made and removed.
        version("..2", &["three"]);
        assert!(followed.look().is_none());
        symlink("..data/three.toml", folder.join("three.toml")).unwrap();
        assert!(followed.look().is_none());
        fs::remove_file(folder.join("two.toml")).unwrap();
        assert!(followed.look().is_none());
        assert_eq!(names(followed.look()).unwrap(), ["one", "three"]);
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
