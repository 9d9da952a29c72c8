//! `accounts.d`: accounts in files of their own, in a folder beside the configuration file.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::account::AccountSection;
use super::explain::{ConfigError, explain, is_word, line_at, unknown_field};
use super::limits::CONFIG_BYTES_MAX;
use crate::transport::file::read_text;

/// The name of the folder.
const FOLDER: &str = "accounts.d";
/// The end of the names of files that are read.
const EXTENSION: &str = "toml";
/// Entries of the folder, also those that are not read. All files are read at each look, and a file may hold many
/// accounts.
const ENTRIES_MAX: usize = 10_000;

/// A file of the folder.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AccountFile {
    #[serde(default)]
    account: Vec<Spanned<AccountSection>>,
}

/// The folder that belongs to a configuration file.
pub fn folder_of(file: &Path) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).join(FOLDER)
}

/// The files in the order of their names, with their texts or why they cannot be read. Empty if there is no folder.
pub type Found = Vec<(PathBuf, io::Result<String>)>;

/// Reads the files of the folder.
///
/// # Errors
/// The folder cannot be read, or has too many entries. One line with the remedy.
pub fn read(folder: &Path) -> Result<Found, ConfigError> {
    let mut left = CONFIG_BYTES_MAX;
    let texts = paths(folder)?.into_iter().map(|path| {
        let text = read_file(&path, left);
        left -= text.as_ref().map_or(0, String::len);
        (path, text)
    });
    Ok(texts.collect())
}

/// The accounts of one file, each with the place of its table in the text.
///
/// # Errors
/// One line with the file, the line number and the complaint.
pub fn parse(file: &str, text: &str) -> Result<Vec<Spanned<AccountSection>>, ConfigError> {
    let parsed: AccountFile = toml::from_str(text).map_err(|error| match unknown_field(error.message()) {
        Some((key, expected)) if expected == ["account"] => {
            let key = if is_word(&key) { format!(" `{key}`") } else { String::new() };
            let line = line_at(text, error.span().map_or(0, |span| span.start));
            ConfigError(format!("{file}:{line}: unknown key{key}; → only [[account]] belongs in a file of {FOLDER}"))
        }
        _ => explain(file, text, &error),
    })?;
    if parsed.account.is_empty() {
        // Most likely it is being written, or cut off.
        return Err(ConfigError(format!("{file}:1: this file has no [[account]]; → add one, or remove the file")));
    }
    Ok(parsed.account)
}

/// Why a file of the folder cannot be read, and the remedy.
pub fn unreadable(path: &Path, error: &io::Error) -> ConfigError {
    let remedy = match error.kind() {
        ErrorKind::PermissionDenied => "let the user of scimtail read it",
        ErrorKind::FileTooLarge => {
            return ConfigError(format!(
                "{}: the files of {FOLDER} have more than {CONFIG_BYTES_MAX} bytes together; → remove what is not an account",
                path.display()
            ));
        }
        ErrorKind::InvalidData => "write it in UTF-8",
        _ => "remove it, or put a file with [[account]] there",
    };
    ConfigError(format!("{}: cannot be read ({}); → {remedy}", path.display(), error.kind()))
}

/// True for the name of a file that is read. A name that begins with a dot is none. Kubernetes keeps the files of a
/// volume below such names and lets links lead there.
pub fn is_read(path: &Path) -> bool {
    let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    !is_hidden && path.extension().is_some_and(|extension| extension == EXTENSION)
}

/// The files that are read, in the order of their names.
fn paths(folder: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let failed = |error: io::Error| {
        let remedy = match error.kind() {
            ErrorKind::PermissionDenied => "let the user of scimtail read and enter the folder",
            ErrorKind::NotFound => "the link leads nowhere, mount or remove it",
            _ => "make it a folder, or remove it",
        };
        ConfigError(format!("{}: cannot be read ({}); → {remedy}", folder.display(), error.kind()))
    };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        // Without a folder there are no such files. A link to a volume that is not mounted is something else.
        Err(error) if error.kind() == ErrorKind::NotFound && folder.symlink_metadata().is_err() => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(failed(error)),
    };
    let mut paths = Vec::new();
    for (number, entry) in (1..).zip(entries) {
        if number > ENTRIES_MAX {
            return Err(ConfigError(format!(
                "{}: more than {ENTRIES_MAX} entries; → write several [[account]] into one file",
                folder.display()
            )));
        }
        let path = entry.map_err(failed)?.path();
        if is_read(&path) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// A pipe is not waited for: what no process writes would stop the service.
fn read_file(path: &Path, bytes_max: usize) -> io::Result<String> {
    match fs::metadata(path)? {
        metadata if metadata.is_file() => read_text(path, bytes_max),
        metadata if metadata.is_dir() => Err(ErrorKind::IsADirectory.into()),
        _ => Err(ErrorKind::InvalidInput.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::config::Config;

    const MAIN: &str = "[kafka]\nbrokers = [\"localhost:9092\"]\n\n[registry]\nurl = \"http://localhost:8081\"\n\n[defaults]\ninterval = \"7m\"\n";

    fn account(name: &str) -> String {
        format!(
            "[[account]]\nname = \"{name}\"\nprovider = \"generic\"\nbase_url = \"https://acme.example/scim\"\ntoken_file = \"token\"\n"
        )
    }

    /// A configuration file with these files beside it in `accounts.d`.
    fn written(main: &str, files: &[(&str, &str)]) -> tempfile::TempDir {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join(FOLDER)).unwrap();
        fs::write(place.path().join("scimtail.toml"), main).unwrap();
        for (name, text) in files {
            fs::write(place.path().join(FOLDER).join(name), text).unwrap();
        }
        place
    }

    fn load(place: &tempfile::TempDir) -> Result<Config, String> {
        let said = |error: ConfigError| error.0.replace(&format!("{}/", place.path().display()), "");
        Config::load(&place.path().join("scimtail.toml")).map_err(said)
    }

    fn names(config: &Config) -> Vec<&str> {
        config.accounts.iter().map(|config| config.account.name.as_str()).collect()
    }

    #[test]
    fn accounts_are_merged_in_the_order_of_the_names_of_their_files() {
        let main = format!("{MAIN}{}", account("main"));
        let two = account("c") + &account("a");
        let place = written(&main, &[("20.toml", &account("b")), ("10.toml", &two), ("9.toml", &account("d"))]);
        let config = load(&place).unwrap();
        assert_eq!(names(&config), ["main", "c", "a", "b", "d"]);
        assert!(config.accounts.iter().all(|config| config.interval.as_secs() == 420), "[defaults] is for all");
        assert_eq!(config.files.len(), 4);
        // A path in such a file means what it means in the main file.
        let path = |number: usize| config.accounts[number].secret.named_file().map(|file| file.path.clone());
        assert_eq!((path(0), path(1)), (Some("token".into()), Some("token".into())));
    }

    #[test]
    fn the_main_file_needs_no_account_if_a_file_of_the_folder_has_one_and_needs_no_folder_either() {
        assert_eq!(names(&load(&written(MAIN, &[("a.toml", &account("a"))])).unwrap()), ["a"]);
        let place = written(&format!("{MAIN}{}", account("main")), &[]);
        assert_eq!(names(&load(&place).unwrap()), ["main"]);
        fs::remove_dir(place.path().join(FOLDER)).unwrap();
        assert_eq!(names(&load(&place).unwrap()), ["main"]);
        let complaint = load(&written(MAIN, &[])).unwrap_err();
        assert_eq!(complaint, "scimtail.toml: no [[account]] is configured; → add one here, or a file of accounts.d");
    }

    #[test]
    fn each_wrong_file_is_named_with_its_line_and_what_to_do() {
        let twice = account("a") + "\n" + &account("b");
        for (text, words) in [
            (
                format!("{}\n[kafka]\nbrokers = []\n", account("a")),
                "accounts.d/x.toml:7: unknown key `kafka`; → only [[account]] belongs in a file of accounts.d",
            ),
            (
                "interval = \"1m\"\n".to_owned(),
                "accounts.d/x.toml:1: unknown key `interval`; → only [[account]] belongs in a file of accounts.d",
            ),
            ("[account]\nname = \"a\"\n".to_owned(), "accounts.d/x.toml:1: invalid type: map, expected a sequence"),
            (
                twice.replacen("token_file", "token_fil", 2),
                "accounts.d/x.toml:5: unknown key `token_fil` in [[account]] a; did you mean `token_file`?",
            ),
            (
                format!("{}interval = \"0s\"\n", account("a") + "\n" + &account("b")),
                "accounts.d/x.toml:7: [[account]] b: interval must be at least 1s",
            ),
            (
                twice.replace("\"b\"", "\"B\""),
                "accounts.d/x.toml:7: [[account]]: a name is [a-z0-9][a-z0-9._-]{0,62}; →",
            ),
            (
                twice.replace("\"b\"", "\"a\""),
                "accounts.d/x.toml:7: two accounts are named `a`, the other one is at accounts.d/x.toml:1; → give each",
            ),
            (
                account("main"),
                "accounts.d/x.toml:1: two accounts are named `main`, the other one is at scimtail.toml:10; → give each",
            ),
            (
                account("w"),
                "accounts.d/x.toml:1: two accounts are named `w`, the other one is at accounts.d/w.toml:1; → give each",
            ),
            (String::new(), "accounts.d/x.toml:1: this file has no [[account]]; → add one, or remove the file"),
            ("# later\n".to_owned(), "accounts.d/x.toml:1: this file has no [[account]]; → add one, or remove"),
            ("[[account]]\nname = \"a".to_owned(), "accounts.d/x.toml:2: "),
            ("[[account]]\nname = \"a\"\n".to_owned(), "accounts.d/x.toml:1: missing field `provider`"),
        ] {
            let place =
                written(&format!("{MAIN}\n{}", account("main")), &[("w.toml", &account("w")), ("x.toml", &text)]);
            let complaint = load(&place).unwrap_err();
            assert!(complaint.starts_with(words) && complaint.lines().count() == 1, "{complaint}\ninstead of\n{words}");
        }
    }

    #[test]
    fn no_error_about_a_file_repeats_a_secret_in_the_wrong_place() {
        for text in [
            "sk_live_4ca9ary = 1\n".to_owned(),
            "[sk_live_4ca9ary]\n".to_owned(),
            account("a").replace("token_file = \"token\"", "token = \"sk_live_4ca9ary\""),
            account("a").replace("\"a\"", "\"sk_live_4CA9ary\""),
            "account = [\"sk_live_4ca9ary\"]\n".to_owned(),
        ] {
            let complaint = load(&written(MAIN, &[("x.toml", &text)])).unwrap_err();
            assert!(complaint.starts_with("accounts.d/x.toml:") && !complaint.contains("4ca9"), "{complaint}");
            assert!(!complaint.contains("4CA9"), "{complaint}");
        }
    }

    #[test]
    fn only_files_whose_names_end_in_toml_and_do_not_begin_with_a_dot_are_read() {
        let broken = "no configuration";
        let place = written(
            MAIN,
            &[
                ("a.toml", &account("a")),
                (".hidden.toml", broken),
                ("a.toml~", broken),
                ("b.toml.off", broken),
                ("README", broken),
                (".toml", broken),
            ],
        );
        assert_eq!(names(&load(&place).unwrap()), ["a"]);
    }

    #[test]
    fn a_volume_of_kubernetes_is_read_through_its_links() {
        let place = written(MAIN, &[]);
        let folder = place.path().join(FOLDER);
        fs::create_dir(folder.join("..2026_11_29")).unwrap();
        fs::write(folder.join("..2026_11_29/a.toml"), account("a")).unwrap();
        symlink("..2026_11_29", folder.join("..data")).unwrap();
        symlink("..data/a.toml", folder.join("a.toml")).unwrap();
        assert_eq!(names(&load(&place).unwrap()), ["a"]);
        // A file that left the volume, and whose link is still there.
        symlink("..data/b.toml", folder.join("b.toml")).unwrap();
        let complaint = load(&place).unwrap_err();
        assert!(
            complaint.starts_with("accounts.d/b.toml: cannot be read (entity not found); → remove it"),
            "{complaint}"
        );
    }

    #[test]
    fn what_is_no_readable_file_or_folder_is_said_and_never_waited_for() {
        let place = written(MAIN, &[("a.toml", &account("a")), ("b.toml", "")]);
        let folder = place.path().join(FOLDER);
        let wrong = folder.join("b.toml");
        let complaint = |words: &str| {
            let complaint = load(&place).unwrap_err();
            assert!(complaint.starts_with(words) && complaint.contains("; → "), "{complaint}");
        };
        fs::remove_file(&wrong).unwrap();
        fs::create_dir(&wrong).unwrap();
        complaint("accounts.d/b.toml: cannot be read (is a directory)");
        fs::remove_dir(&wrong).unwrap();
        let made = std::process::Command::new("mkfifo").arg(&wrong).status().expect("every Unix system has mkfifo");
        assert!(made.success());
        complaint("accounts.d/b.toml: cannot be read (");
        fs::remove_file(&wrong).unwrap();
        fs::write(&wrong, [0xff]).unwrap();
        complaint("accounts.d/b.toml: cannot be read (invalid data); → write it in UTF-8");
        fs::remove_dir_all(&folder).unwrap();
        fs::write(&folder, "").unwrap();
        complaint("accounts.d: cannot be read (not a directory); → make it a folder");
        fs::remove_file(&folder).unwrap();
        symlink("absent", &folder).unwrap();
        complaint("accounts.d: cannot be read (entity not found); → the link leads nowhere");
    }

    #[test]
    fn the_folder_has_a_bound_for_its_entries_and_one_for_the_bytes_of_its_files() {
        let place = written(MAIN, &[("a.toml", &account("a"))]);
        let folder = place.path().join(FOLDER);
        for number in 1..ENTRIES_MAX {
            fs::write(folder.join(number.to_string()), "").unwrap();
        }
        assert_eq!(names(&load(&place).unwrap()), ["a"]);
        fs::write(folder.join("one-more"), "").unwrap();
        assert_eq!(
            load(&place).unwrap_err(),
            "accounts.d: more than 10000 entries; → write several [[account]] into one file"
        );
        let place = written(MAIN, &[("a.toml", &account("a")), ("c.toml", &account("c"))]);
        let half = format!("{}#{}", account("b"), "x".repeat(CONFIG_BYTES_MAX - account("b").len() - 1));
        fs::write(place.path().join(FOLDER).join("b.toml"), &half).unwrap();
        let complaint = load(&place).unwrap_err();
        assert!(
            complaint
                .starts_with("accounts.d/b.toml: the files of accounts.d have more than 67108864 bytes together; →"),
            "{complaint}"
        );
    }
}
