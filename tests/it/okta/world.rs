//! An account whose directory is the simulated Okta; only Kafka is in memory.

use std::sync::Arc;

use scimtail::account::Account;
use scimtail::directory::{Kind, Principal, Status, SyncStatus};
use scimtail::okta::{GroupNames, OktaDirectory};
use scimtail::scim::{Client, ClientProof, Credential, Patience, Profile, Reach, Scheme, Sources, TokenParams};

use super::org::Org;
use super::server::{SimulatedOkta, TOKEN};
use crate::hostile::patient;
use crate::memory::{World, account, clock};

pub struct OktaWorld {
    pub world: World,
    pub okta: SimulatedOkta,
    pub directory: OktaDirectory,
}

const SOURCES: Sources = Sources { now: clock, random: || 7 };

impl OktaWorld {
    /// `overrides`: fields of the profile. `names`: which groups are read.
    pub async fn new(org: Org, overrides: &str, names: Option<&[&str]>) -> OktaWorld {
        let okta = SimulatedOkta::start(org).await;
        let scheme = Scheme::api_key("Authorization", "SSWS").expect("a header");
        let credential = Credential::new(scheme, Arc::new(|| Ok(TOKEN.to_owned().into())), &Reach::default(), SOURCES);
        let directory = directory(&okta, credential.expect("a credential"), profile(overrides), names);
        OktaWorld { world: World::new(of_profile(&profile(overrides))), okta, directory }
    }

    /// As [`OktaWorld::new`], with an API service app in place of the token.
    pub async fn with_app(org: Org) -> OktaWorld {
        let okta = SimulatedOkta::start(org).await;
        let profile = profile("auth = \"oauth2\"");
        let scheme = Scheme::Oauth2 {
            client_id: "0oa-client".to_owned(),
            token_url: okta.base_url.join("oauth2/v1/token").expect("a URL"),
            scope: profile.scope.clone(),
            params: TokenParams::new(),
            proof: ClientProof::Key { id: None },
        };
        let key = include_str!("../../keys/p256.pem");
        let credential = Credential::new(scheme, Arc::new(|| Ok(key.to_owned().into())), &Reach::default(), SOURCES);
        let credential = credential.expect("a credential").with_token_remedies(profile.token_remedies.clone());
        let directory = directory(&okta, credential, profile.clone(), None);
        OktaWorld { world: World::new(of_profile(&profile)), okta, directory }
    }

    /// With its completed baseline.
    pub async fn baseline(org: &str) -> OktaWorld {
        OktaWorld::baseline_with(org, "", None).await
    }

    pub async fn baseline_with(org: &str, overrides: &str, names: Option<&[&str]>) -> OktaWorld {
        let mut world = OktaWorld::new(Org::parse(org), overrides, names).await;
        world.publishes(&[]).await;
        world
    }

    pub async fn sync(&mut self) -> SyncStatus {
        self.world.sync_with(&self.directory).await
    }

    /// A sync completes and publishes exactly `events`.
    pub async fn publishes(&mut self, events: &[&str]) -> SyncStatus {
        let before = self.world.lines(0).len();
        let status = self.sync().await;
        assert_eq!(status.status, Status::Completed, "{:?}: {:?}", status.reason_code, status.reason);
        assert_eq!(self.world.lines(before), *events, "{:?}", status.findings);
        status
    }

    /// A sync fails with these words and publishes nothing.
    pub async fn fails(&mut self, words: &str) -> SyncStatus {
        let before = self.world.lines(0).len();
        let status = self.sync().await;
        let reason = status.reason.clone().unwrap_or_default();
        assert!(status.status == Status::Failed && reason.contains(words), "{:?}: {reason}", status.status);
        assert_eq!(self.world.lines(before), [""; 0]);
        assert!(!reason.contains("canary"), "{reason}");
        status
    }

    pub fn known(&self, kind: Kind, id: &str) -> Principal {
        self.world.known.table(kind).principal(id).unwrap_or_else(|| panic!("{id} is not known"))
    }

    /// Which groups are read from now on, as after a change of the configuration.
    pub fn read_groups(&mut self, names: Option<&[&str]>) {
        let client = self.directory.client.clone();
        self.directory = OktaDirectory::new(client, self.world.account.attributes.clone(), group_names(names));
    }
}

fn profile(overrides: &str) -> Profile {
    Profile::layered("okta", &Default::default(), toml::from_str(overrides).expect("TOML")).expect("a profile")
}

fn of_profile(profile: &Profile) -> Account {
    Account {
        habits: profile.habits(),
        attributes: profile.default_attributes(),
        pattern: profile.pattern().expect("a pattern"),
        ..account("acme")
    }
}

fn group_names(names: Option<&[&str]>) -> Option<GroupNames> {
    names.map(|names| GroupNames::new(&names.iter().map(ToString::to_string).collect::<Vec<_>>()).expect("names"))
}

fn directory(okta: &SimulatedOkta, credential: Credential, profile: Profile, names: Option<&[&str]>) -> OktaDirectory {
    let attributes = profile.default_attributes();
    let patience = Patience { pages: 2_000, ..patient() };
    let client = Client::with_patience(okta.base_url.clone(), credential, profile, &Reach::default(), clock, patience);
    OktaDirectory::new(client.expect("a client"), attributes, group_names(names))
}
