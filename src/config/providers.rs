//! `[providers]`: profiles that the configuration adds to the shipped ones, or puts in their place.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::account::is_account_name;
use super::explain::{did_you_mean, explain, in_profile, line_of};
use crate::scim::layers;
use crate::scim::profile::Profile;

/// `[providers]`: name → a profile's TOML file, relative to the folder of the configuration.
pub(super) type ProviderPaths = BTreeMap<String, PathBuf>;

/// Texts of profiles that add to the shipped ones or replace them, by name.
pub type ProviderTexts = BTreeMap<String, String>;

/// Reads and checks every profile that `[providers]` names, those that no account uses too.
pub(super) fn provider_texts(paths: &ProviderPaths, folder: &Path) -> Result<ProviderTexts, String> {
    let mut texts = ProviderTexts::new();
    for (name, path) in paths {
        if !is_account_name(name) {
            return Err(format!("[providers] {name}: a name is [a-z0-9][a-z0-9._-]{{0,62}}"));
        }
        let path = folder.join(path);
        let text = fs::read_to_string(&path).map_err(|error| {
            let path = path.display();
            format!("[providers] {name}: {path} cannot be read ({}); → relative to this file's folder", error.kind())
        })?;
        texts.insert(name.clone(), text);
    }
    for (name, path) in paths {
        let path = folder.join(path).display().to_string();
        let text = texts.get(name).map_or("", String::as_str);
        // First by itself: only so a syntax error has its line.
        toml::from_str::<toml::Table>(text)
            .map_err(|error| format!("[providers] {name}: {}", explain(&path, text, &error)))?;
        Profile::layered(name, &texts, toml::Table::new()).map_err(|complaint| {
            let line = line_of(text, &complaint).map_or_else(String::new, |line| format!(":{line}"));
            format!("[providers] {name}: {path}{line}: {}", in_profile(name, &complaint))
        })?;
    }
    Ok(texts)
}

/// The profile of a provider, shipped or among `texts`.
///
/// # Errors
/// Unknown name, with the nearest one there is.
pub fn provider(name: &str, texts: &ProviderTexts) -> Result<Profile, String> {
    let known = layers::names(texts);
    if !known.contains(&name) {
        let nearest = match did_you_mean(name, known.into_iter()) {
            none if none.is_empty() => ";".to_owned(),
            nearest => nearest,
        };
        return Err(format!("unknown provider `{name}`{nearest} → scimtail providers lists them"));
    }
    Profile::layered(name, texts, toml::Table::new())
}
