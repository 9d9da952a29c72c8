//! One provider: its profile, the facts behind it, and an account to begin with.

use crate::cli::failure::{Exit, Failure};
use crate::config::{self, ProviderTexts};
use crate::scim::layers::{Fact, facts};
use crate::scim::profile::{Api, Auth, Profile};
use crate::scim::token::{REFRESH_TOKEN, grant_type};

/// A profile, and its fields as TOML states them.
pub struct Provider {
    pub profile: Profile,
    pub facts: Vec<Fact>,
}

impl Provider {
    /// # Errors
    /// The profile is unknown or wrong.
    pub fn read(name: &str, texts: &ProviderTexts) -> Result<Provider, Failure> {
        let wrong = |text: String| Failure::new(Exit::Configuration, text);
        Ok(Provider {
            profile: config::provider(name, texts).map_err(wrong)?,
            facts: facts(name, texts).map_err(wrong)?,
        })
    }

    /// The value of a field, `-` if it has none.
    pub fn value(&self, field: &str) -> &str {
        self.facts.iter().find(|fact| fact.field == field).and_then(|fact| fact.value.as_deref()).unwrap_or("-")
    }

    /// An account of this provider for the configuration file.
    pub fn example(&self) -> String {
        let name = &self.profile.name;
        let variable = name.to_uppercase().replace(['-', '.'], "_");
        let api = if self.profile.api == Api::Scim { "SCIM" } else { "API" };
        let mut lines =
            vec!["[[account]]".to_owned(), format!("name = \"acme-{name}\""), format!("provider = \"{name}\"")];
        if self.profile.base_url.is_none() {
            let url = self.profile.template("base_url").unwrap_or("https://acme.example/scim/v2");
            lines.push(format!("base_url = \"{url}\""));
        }
        match self.profile.auth {
            Auth::Bearer | Auth::ApiKey => lines.push(format!("token_env = \"{variable}_{api}_TOKEN\"")),
            Auth::Basic => {
                lines.push("username = \"…\"".to_owned());
                lines.push(format!("password_env = \"{variable}_SCIM_PASSWORD\""));
            }
            Auth::Oauth2 => {
                lines.push("client_id = \"…\"".to_owned());
                lines.push(format!("client_secret_env = \"{variable}_CLIENT_SECRET\""));
                if grant_type(&self.profile.token_params) == REFRESH_TOKEN {
                    lines.push(format!("refresh_token_env = \"{variable}_REFRESH_TOKEN\""));
                }
                let stated = self.profile.token_params.iter().filter(|(_, value)| value.is_empty());
                let stated: Vec<String> = stated.map(|(name, _)| format!("{name} = \"…\"")).collect();
                if !stated.is_empty() {
                    lines.push(format!("token_params = {{ {} }}", stated.join(", ")));
                }
                if self.profile.token_url.is_none() {
                    let url = self.profile.template("token_url").unwrap_or("https://acme.example/oauth2/token");
                    lines.push(format!("token_url = \"{url}\""));
                }
            }
        }
        if lines.len() < 5 {
            let interval = self.profile.interval.as_deref().unwrap_or("5m");
            lines.push(format!("interval = \"{interval}\""));
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::scim::layers::names;

    #[test]
    fn the_example_of_every_provider_is_an_account_that_the_configuration_accepts() {
        const REST: &str = "[kafka]\nbrokers = [\"localhost:9092\"]\n[registry]\nurl = \"http://localhost:8081\"\n";
        let texts = ProviderTexts::new();
        for name in names(&texts) {
            let provider = Provider::read(name, &texts).unwrap();
            if provider.profile.unreadable.is_some() {
                continue;
            }
            let example = provider.example();
            assert!(example.lines().count() >= 5, "{example}");
            Config::parse("scimtail.toml", &format!("{REST}{example}\n")).unwrap();
        }
    }

    #[test]
    fn topics_of_notes_fit_the_column_that_check_gives_them() {
        let texts = ProviderTexts::new();
        for name in names(&texts) {
            for note in Provider::read(name, &texts).unwrap().profile.notes {
                assert!(note.topic.len() <= "entitlement".len(), "{name}: {}", note.topic);
                assert!(!note.text.contains('\n') && !note.text.ends_with('.'), "{name}: {}", note.text);
            }
        }
    }
}
