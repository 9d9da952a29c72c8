//! `[providers]`: profiles that add to the shipped ones or replace them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::explain::{did_you_mean, explain, in_profile, line_of};
use super::limits::CONFIG_BYTES_MAX;
use super::name::{NAME_RULE, is_name};
use crate::scim::layers;
use crate::scim::profile::Profile;
use crate::transport::file::read_text;

/// `[providers]`: name → a profile's TOML file, relative to the folder of the configuration.
pub type ProviderPaths = BTreeMap<String, PathBuf>;

/// The TOML texts of these profiles, by name.
pub type ProviderTexts = BTreeMap<String, String>;

/// Reads and checks every profile that `[providers]` names, also those that no account uses.
pub fn provider_texts(paths: &ProviderPaths, folder: &Path) -> Result<ProviderTexts, String> {
    let mut texts = ProviderTexts::new();
    for (name, path) in paths {
        if !is_name(name) {
            return Err(format!("[providers] {name}: {NAME_RULE}"));
        }
        let path = folder.join(path);
        let text = read_text(&path, CONFIG_BYTES_MAX).map_err(|error| {
            let path = path.display();
            format!("[providers] {name}: {path} cannot be read ({}); → relative to this file's folder", error.kind())
        })?;
        texts.insert(name.clone(), text);
    }
    for (name, path) in paths {
        let path = folder.join(path).display().to_string();
        let text = texts.get(name).map_or("", String::as_str);
        // By itself first, because only then a syntax error has its line.
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
/// The name is unknown; names the nearest one.
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
